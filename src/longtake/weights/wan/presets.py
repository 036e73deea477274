"""Presets of Wan 2.1 text-to-video and of the published causal students distilled from it, with their sampling.

wan-1.3b, wan-14b       the bidirectional models (Wan team, 2025): teachers
causvid                 Yin et al. 2025: three steps, at entries 0, 36 and 44 of a 50-step schedule of shift 8
self-forcing            Huang et al. 2025: four steps of shift 5
causal-forcing          Zhu et al. 2026: the same sampling, a better initialisation; also in chunks of one latent frame,
                        and of those in two steps or one, with four for the first
longlive, memflow       Yang et al. 2025: a base and a LoRA, a short window behind a sink of one chunk
krea-14b                self-forcing of the 14B model, with a window of two chunks
streamdiffusion-v2      for video to video: from noise level 0.7 down, in chunks of one latent frame
"""

from dataclasses import dataclass, replace

from longtake.core.configs import CodecConfig, DiTConfig, Preset, SamplingConfig, StreamConfig, WanVAEConfig
from longtake.core.errors import InputError
from longtake.core.shapes import PictureSize

TAEW = CodecConfig(pixels="unit")  # taew2_1, the light codec trained for Wan's latents

# The negative prompt of Wan's own configuration. In English: garish, over-exposed, static, blurred, subtitles, style,
# painting, still picture, greyish, worst quality, low quality, JPEG artefacts, ugly, mutilated, extra fingers, badly
# drawn hands and faces, deformed, fused fingers, motionless picture, messy background, three legs, many people in the
# background, walking backwards.
NEGATIVE_PROMPT = (
    "色调艳丽,过曝,静态,细节模糊不清,字幕,风格,作品,画作,画面,静止,整体发灰,最差质量,低质量,JPEG压缩残留,丑陋的,残缺的,多余的手指,"
    "画得不好的手部,画得不好的脸部,畸形的,毁容的,形态畸形的肢体,手指融合,静止不动的画面,杂乱的背景,三条腿,背景人很多,倒着走"
).replace(",", "\uff0c")

FOUR_STEPS = SamplingConfig(num_steps=4, shift=5.0)
FOUR_LEVELS = (1.0, 0.9375, 5 / 6, 0.625)  # those of FOUR_STEPS
THREES = StreamConfig(chunk=3, window=21)
SINGLES = StreamConfig(chunk=1, window=21)
BEHIND_A_SINK = StreamConfig(chunk=3, window=12, sink=3)
APACHE, NON_COMMERCIAL = "Apache-2.0", "CC BY-NC-SA 4.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownStudent:
    """A published student: its base model, sampling settings and the location of its file."""

    base: str
    sampling: SamplingConfig
    stream: StreamConfig
    hub: str  # owner/name of the repository
    file: str  # path in the repository; empty: the only file with weights
    licence: str
    key: str | None = None  # entry of the file that holds the network, where there are several; None: the likeliest
    lora: str | None = None  # path of the LoRA that belongs to it


def wan(name: str, dit: DiTConfig, shift: float, guidance_scale: float) -> Preset:
    """Preset of a bidirectional Wan; published students of it have their own sampling (`STUDENTS`)."""
    return Preset(
        name=name,
        description=f"Wan 2.1 text-to-video {name.removeprefix('wan-').upper()}, 832x480 at 16 frames/s",
        dit=dit,
        codec=WanVAEConfig(),
        stream=THREES,
        student=FOUR_STEPS,
        teacher=SamplingConfig(num_steps=50, shift=shift, guidance_scale=guidance_scale, solver="unipc"),
        size=PictureSize(height=480, width=832),
        fps=16.0,
        clip_latent_frames=21,
        text="umt5",
        negative_prompt=NEGATIVE_PROMPT,
    )


WANS = {
    preset.name: preset
    for preset in (
        wan(
            "wan-1.3b",
            DiTConfig(dim=1536, num_layers=30, num_heads=12, ffn_dim=8960, text_dim=4096, text_len=512),
            shift=8.0,
            guidance_scale=6.0,
        ),
        wan(
            "wan-14b",
            DiTConfig(dim=5120, num_layers=40, num_heads=40, ffn_dim=13824, text_dim=4096, text_len=512),
            shift=5.0,
            guidance_scale=5.0,
        ),
    )
}

STUDENTS = {
    "causvid": KnownStudent(
        base="wan-1.3b",
        sampling=SamplingConfig(num_steps=3, shift=8.0, sigmas=(1.0, 0.757, 0.522)),
        stream=THREES,
        hub="tianweiy/CausVid",
        file="autoregressive_checkpoint/model.pt",
        licence=NON_COMMERCIAL,
    ),
    "self-forcing": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=THREES,
        hub="gdhe17/Self-Forcing",
        file="checkpoints/self_forcing_dmd.pt",
        licence=APACHE,
        key="generator_ema",
    ),
    "self-forcing-fp8": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=THREES,
        hub="lightx2v/Self-Forcing-FP8",
        file="",
        licence=APACHE,
    ),
    "causal-forcing": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=THREES,
        hub="zhuhz22/Causal-Forcing",
        file="chunkwise/causal_forcing.pt",
        licence=APACHE,
        key="generator",
    ),
    "causal-forcing-frame": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=SINGLES,
        hub="zhuhz22/Causal-Forcing",
        file="framewise/causal_forcing.pt",
        licence=APACHE,
        key="generator_ema",
    ),
    "causal-forcing-2step": KnownStudent(
        base="wan-1.3b",
        sampling=SamplingConfig(num_steps=2, shift=5.0, first_sigmas=FOUR_LEVELS),
        stream=SINGLES,
        hub="zhuhz22/Causal-Forcing",
        file="causal-forcing++/framewise-2step.pt",
        licence=APACHE,
        key="generator_ema",
    ),
    "causal-forcing-1step": KnownStudent(
        base="wan-1.3b",
        sampling=SamplingConfig(num_steps=1, shift=5.0, first_sigmas=FOUR_LEVELS),
        stream=SINGLES,
        hub="zhuhz22/Causal-Forcing",
        file="causal-forcing++/framewise-1step.pt",
        licence=APACHE,
        key="generator_ema",
    ),
    "longlive": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=BEHIND_A_SINK,
        hub="Efficient-Large-Model/LongLive-1.3B",
        file="models/longlive_base.pt",
        licence=APACHE,
        key="generator",
        lora="models/lora.pt",
    ),
    "memflow": KnownStudent(
        base="wan-1.3b",
        sampling=FOUR_STEPS,
        stream=BEHIND_A_SINK,
        hub="KlingTeam/MemFlow",
        file="base.pt",
        licence="see its repository",
        key="generator",
        lora="lora.pt",
    ),
    "krea-14b": KnownStudent(
        base="wan-14b",
        sampling=FOUR_STEPS,
        stream=StreamConfig(chunk=3, window=6),
        hub="krea/krea-realtime-video",
        file="krea-realtime-video-14b.safetensors",
        licence=NON_COMMERCIAL,
    ),
    "streamdiffusion-v2": KnownStudent(
        base="wan-1.3b",
        sampling=SamplingConfig(num_steps=4, shift=8.0, sigmas=(0.7, 0.5, 0.4, 0.2)),
        stream=StreamConfig(chunk=1, window=6, sink=3),
        hub="jerryfeng/StreamDiffusionV2",
        file="wan_causal_dmd_v2v/model.pt",
        licence=APACHE,
        key="generator",
    ),
}


def student_preset(name: str) -> Preset:
    """The preset of a published student.

    Raises:
        InputError: `name` is not one of `STUDENTS`.
    """
    if name not in STUDENTS:
        raise InputError(f'no student "{name}" is known; give one of: {", ".join(STUDENTS)}')
    known = STUDENTS[name]
    return replace(
        WANS[known.base],
        name=name,
        description=f"{name}, a causal student of {known.base}: {known.sampling.num_steps} steps, 832x480",
        stream=known.stream,
        student=known.sampling,
    )
