"""The last stage: the decoder alone, tuned to make crisp pictures of what the student makes.

The encoder stays as it is, so latents, teacher and student do. Half of the latents are the student's own x0 of real
latents that were noised again, at one of its levels, behind the clean chunks before them; the others are real, with a
little noise on them. All are paired with the true frames: the decoder learns to sharpen the errors that this student
makes.

    squared + absolute error, subjects weighted more     as when the codec was fitted
    + error of the differences of successive frames
    + distance to the corrected target of a patch discriminator (`discriminator.correction`)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.configs import Preset
from longtake.core.errors import TrainingError
from longtake.core.shapes import Latent, Video
from longtake.flow.distortion import psnr
from longtake.flow.path import add_noise, x0_from_velocity
from longtake.flow.schedule import sigmas_of
from longtake.nets.coarse_codec import CoarseCodec
from longtake.nets.dit import DiT
from longtake.nets.light_codec import CodecState, LightCodec
from longtake.train.batches import Batch, LatentClips, normal, pixels
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.codec_fit import held_out_figures, load_codec, pixel_loss
from longtake.train.discriminator import FRAMES, PatchDiscriminator, correction, discriminator_loss
from longtake.train.ema import EMA
from longtake.train.latents import STAGE as LATENTS
from longtake.train.latents import LatentStage, windows
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.teacher import load_dit
from longtake.train.trainee import Trainee
from longtake.worlds.scenes import WorldConfig, sample_scene

STAGE = "decoder"
ENCODER = ("enter", "fine_encoder", "down", "encoder", "to_latent", "encoder_cells")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderStage:
    """How the decoder is tuned. Clips of `latent_frames` latent frames, from their start."""

    loop: LoopConfig
    discriminator: OptimConfig
    batch: int
    latent_frames: int
    patch: int = 64  # pixels of the side of what the discriminator sees
    patches: int = 8  # that it sees of each batch
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)  # of the discriminator
    kept: int = 512  # fakes that it remembers
    latent_noise: float = 0.2  # standard deviation, on real latents
    student_share: float = 0.5  # of the batches: latents that the student made
    absolute_weight: float = 0.1
    change_weight: float = 0.1
    subject_weight: float = 3.0
    adversarial_weight: float = 0.05  # pixels by which the corrected target lies away, at one deviation


@dataclass(frozen=True)
class Patches:
    """What the discriminator is shown of a batch: fakes, the same moments of the truth, and their latents."""

    fake: Float[Tensor, "n c h w"]
    real: Float[Tensor, "n c h w"]
    latent: Float[Tensor, "n d _h _w"]


@dataclass(frozen=True)
class Pairs:
    """Latents to be decoded, and what they are to become."""

    latent: Latent
    video: Video
    cover: Float[Tensor, "b 1 frames height width"]  # of the subjects, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class PairedClips:
    """Openings of latent clips with their true frames, which are drawn again."""

    stage: DecoderStage
    made: LatentStage  # how the latent clips were
    world: WorldConfig
    preset: Preset
    clips: LatentClips
    student: DiT

    def draw(self, rng: torch.Generator) -> Pairs:
        """A batch that depends on `rng` alone: its latents are real with some noise, or the student's."""
        stage = self.stage
        rows = torch.randint(len(self.clips), (stage.batch,), generator=rng)
        batch = self.clips.openings(rows, stage.latent_frames)
        by_student = float(torch.rand((), generator=rng)) < stage.student_share
        eps = normal(batch.x0.shape, rng, self.clips.device)
        latent = self._remade(batch, eps, rng) if by_student else batch.x0 + stage.latent_noise * eps
        scenes = [sample_scene(self.world, self.made.first_seed + row) for row in rows.tolist()]
        length = self.made.latent_frames or self.world.latent_frames
        frames = self.preset.codec.stride.frames(stage.latent_frames)
        drawn = windows(scenes, length)[:, :frames].to(self.clips.device)
        return Pairs(latent, pixels(drawn[..., :3]), drawn[:, None, ..., 3].float() / 255)

    @torch.no_grad()
    def _remade(self, batch: Batch, eps: Tensor, rng: torch.Generator) -> Latent:
        """The student's x0 of real latents at one of its noise levels, each chunk behind the clean ones before it."""
        levels = torch.tensor(sigmas_of(self.preset.student))
        picked = torch.randint(len(levels), (len(eps), 1), generator=rng)
        sigma = levels[picked].expand(-1, eps.shape[2]).to(eps)
        x_t = add_noise(batch.x0, eps, sigma)
        chunk = self.preset.stream.chunk
        v = self.student.forward_teacher_forced(batch.x0, x_t, sigma, batch.text, chunk)
        return x0_from_velocity(x_t, v, sigma)


def decoder_stage(context: Context) -> str:
    """The stage whose codec is the finished one."""
    return STAGE if context.done(STAGE) else CODEC


def run(stage: DecoderStage, latents: LatentStage, world: WorldConfig, student: str, context: Context) -> bool:
    """Tune the decoder; False when a limit came first.

    Args:
        stage: how.
        latents: how the latent clips were made: their frames are drawn again.
        world: that they show.
        student: the stage that the finished student comes from.
        context: of the run.
    """
    context.begin(STAGE, stage, latents, world, after=(CODEC, LATENTS, student))
    if context.done(STAGE):
        return True
    preset, device = context.preset, context.device
    codec = load_codec(context.folder(CODEC), preset.codec, device)
    if not isinstance(codec, LightCodec | CoarseCodec):
        raise TrainingError("the Wan VAE is not trained here; the recipe's preset needs a light or a coarse codec")
    codec.train()
    for name, p in codec.named_parameters():
        p.requires_grad = name.split(".")[0] not in ENCODER
    channels, space = preset.codec.latent_channels, preset.codec.stride.space
    critic = seeded(
        stage.loop.seed, lambda: PatchDiscriminator(channels, stage.widths, stage.kept, stage.patch, space)
    ).to(device)
    network = load_dit(context, context.folder(student), "student").to(device).eval()
    network.requires_grad_(requires_grad=False)
    clips = LatentClips(context.folder(LATENTS), context.encoder, preset.stream.chunk, device)
    pairs = PairedClips(stage=stage, made=latents, world=world, preset=preset, clips=clips, student=network)
    ema = EMA(codec, stage.loop.ema_decay)
    shown: list[Patches] = []  # of the decoder's last step, for the discriminator's

    def decoder_loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        drawn = pairs.draw(rng)
        decoded, _ = codec.decode(drawn.latent, CodecState())
        fidelity, mean_square = pixel_loss(decoded, drawn.video, drawn.cover, stage)
        patches = cut_patches(stage, drawn, decoded, space, rng)
        towards = correction(critic, patches.fake, patches.real, patches.latent)
        target = (patches.fake + stage.adversarial_weight * towards).detach()
        adversarial = (patches.fake - target).square().mean()
        shown[:] = [Patches(patches.fake.detach(), patches.real, patches.latent)]
        return fidelity + adversarial, {"psnr": float(psnr(mean_square))}

    def critic_loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        (patches,) = shown
        frames, codes = critic.remembered(len(patches.fake) // 2, rng)
        fresh = len(patches.fake) - len(frames)
        fake = critic(torch.cat((patches.fake[:fresh], frames)), torch.cat((patches.latent[:fresh], codes)))
        real = critic(patches.real, patches.latent)
        critic.keep(patches.fake, patches.latent, rng)
        loss = discriminator_loss(real, fake)
        told = {"loss": loss.detach(), "real": real.detach().mean(), "fake": fake.detach().mean()}
        return loss, {name: float(value) for name, value in told.items()}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [
            Trainee(name="codec", net=codec, optim=stage.loop.optim, loss=decoder_loss, ema=ema),
            Trainee(name="discriminator", net=critic, optim=stage.discriminator, loss=critic_loss),
        ],
        facts=lambda: held_out_figures(codec, world, device),
    )


def cut_patches(stage: DecoderStage, drawn: Pairs, decoded: Video, space: int, rng: torch.Generator) -> Patches:
    """Patches on the latent grid of three successive frames, every other one where a subject is."""
    video, latent = drawn.video, drawn.latent
    batch, _, frames, height, width = video.shape
    time = (frames - 1) // (latent.shape[2] - 1)  # frames of a latent frame; the first one holds one
    side = stage.patch // space
    rows, columns = height // space - side, width // space - side
    fakes, reals, codes = [], [], []

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=rng))

    for idx in range(stage.patches):
        clip, first = idx % batch, draw(frames - FRAMES + 1)
        row, column = draw(rows + 1), draw(columns + 1)
        where = (drawn.cover[clip, 0, first + 1, ::space, ::space] > 0.5).nonzero()
        if idx % 2 and len(where):
            y, x = (int(at) - side // 2 for at in where[draw(len(where))])
            row, column = min(max(y, 0), rows), min(max(x, 0), columns)
        own = slice((first + time - 1) // time, (first + FRAMES + time - 2) // time + 1)
        codes.append(latent[clip, :, own, row : row + side, column : column + side].mean(1))
        top, left = row * space, column * space
        for found, pictures in ((fakes, decoded), (reals, video)):
            piece = pictures[clip, :, first : first + FRAMES, top : top + stage.patch, left : left + stage.patch]
            found.append(piece.flatten(0, 1))
    return Patches(torch.stack(fakes), torch.stack(reals), torch.stack(codes))
