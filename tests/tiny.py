"""A Wan-shaped model small enough for tests: random weights, real code paths."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from longtake.core.configs import CodecConfig, DiTConfig, Preset, SamplingConfig, StreamConfig
from longtake.core.shapes import PictureSize
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import KVCache
from longtake.nets.light_codec import LightCodec
from longtake.nets.low_rank import adapters, add_low_rank
from longtake.sample.denoise import Schedule, denoise
from longtake.weights.checkpoint import save_weights
from longtake.weights.manifest import write_manifest

DIT = DiTConfig(dim=48, num_layers=2, num_heads=2, ffn_dim=64, text_dim=384, text_len=16, in_dim=4, freq_dim=32)
CODEC = CodecConfig(
    latent_channels=4,
    pixel_patch=2,
    encoder_widths=(8, 8, 12),
    decoder_widths=(12, 8, 8),
    blocks=1,
    encoder_time=(4, 1),
    decoder_time=(2, 2),
    space=(2, 2),
)
STREAM = StreamConfig(chunk=3, window=9)
PRESET = Preset(
    name="test",
    description="random weights",
    dit=DIT,
    codec=CODEC,
    stream=STREAM,
    student=SamplingConfig(num_steps=2, shift=3.0),
    teacher=SamplingConfig(num_steps=4, shift=3.0, guidance_scale=3.0),
    size=PictureSize(height=32, width=48),
    fps=16.0,
    clip_latent_frames=9,
)


def random_dit(config: DiTConfig = DIT, seed: int = 0, dtype: torch.dtype = torch.float64) -> DiT:
    """A network whose every parameter matters: the head's zeros would let any law pass."""
    torch.manual_seed(seed)
    dit = DiT(config).to(dtype)
    shake(dit)
    return dit


def two_chunks(dit: DiT) -> tuple[Tensor, KVCache]:
    """A chunk that is given, as memory keeps it, and the one that is denoised after it."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, DIT.in_dim, 3, 4, 6, generator=rng)
    schedule = Schedule.of(dit, PRESET.student)
    text = dit.project_text(torch.randn(1, 1, DIT.text_len, DIT.text_dim, generator=rng))
    cache = KVCache().append(dit.clean_pass(x, schedule.clean, text, dit.rotated_context(KVCache(), x.shape)), STREAM)
    return denoise(dit, schedule, text, dit.rotated_context(cache, x.shape), lambda step: x * (1 + step)), cache


def random_codec(seed: int = 0, dtype: torch.dtype = torch.float64) -> LightCodec:
    torch.manual_seed(seed)
    codec = LightCodec(CODEC).to(dtype)
    shake(codec)
    with torch.no_grad():  # blocks begin as nearly nothing; here they must matter
        for name, p in codec.named_parameters():
            if ".conv.4." in name:
                p.mul_(10)
    return codec


def shake(net: nn.Module) -> None:
    """Random biases, gains and head."""
    for name, p in net.named_parameters():
        if p.ndim == 1 or name.startswith(("head.head", "position_embedding", "pooled_embedding")):
            with torch.no_grad():
                p.add_(0.3 * torch.randn_like(p))


def random_source_adapter(dit: DiT, seed: int = 0) -> dict[str, Tensor]:
    """Corrections that make a network follow a source, and matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        source_adapter = add_low_rank(deepcopy(dit), rank=2)
        source_adapter.add_source()
        assert source_adapter.source_embedding is not None
        torch.nn.init.normal_(source_adapter.source_embedding.weight)
        for name, p in source_adapter.named_parameters():
            if name.endswith("lora_up"):
                torch.nn.init.normal_(p, std=0.1)
    return adapters(source_adapter.state_dict())


def write_model(folder: Path, seed: int = 0, preset: Preset = PRESET, *, source_adapter: bool = False) -> Path:
    """A model folder as training exports it."""
    for i, name in enumerate(("student", "teacher")):
        dit = random_dit(preset.dit, seed + i, torch.float32)
        save_weights(folder, name, dit.state_dict(), dtype=torch.float16)
        if source_adapter and name == "student":
            save_weights(folder, "source_adapter", random_source_adapter(dit), dtype=torch.float16)
    save_weights(folder, "codec", random_codec(seed, torch.float32).state_dict(), torch.float16)
    write_manifest(folder, preset, {"note": "random weights for tests"})
    return folder


def with_stream(preset: Preset, stream: StreamConfig) -> Preset:
    return replace(preset, stream=stream)
