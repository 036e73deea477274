"""The last stage: tuning of the decoder alone, for sharp pictures from the student's latents.

The encoder is frozen, so latents, teacher and student stay valid. Half of the batches hold the student's x0
predictions from real latents noised to one of its levels, given the clean chunks before them; the others hold real
latents with a little noise. All are paired with the true frames, so the decoder learns to correct this student's
errors.

    squared + absolute error, subjects weighted more     as in stage 1
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
from longtake.train.codec_fit import held_out_metrics, load_codec, pixel_loss
from longtake.train.discriminator import FRAMES, PatchDiscriminator, correction, discriminator_loss
from longtake.train.ema import EMA
from longtake.train.latents import STAGE as LATENTS
from longtake.train.latents import LatentStage, openings
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.teacher import load_dit
from longtake.train.trainee import Trainee
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

STAGE = "decoder"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderStage:
    """Configuration of the decoder's tuning on the first `latent_frames` latent frames of clips."""

    loop: LoopConfig
    discriminator: OptimConfig
    batch: int
    latent_frames: int
    patch: int = 64  # side of the discriminator's patches in pixels
    patches: int = 8  # number of patches per batch
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)  # channels of the discriminator's convolutions
    kept: int = 512  # capacity of the discriminator's replay buffer of fakes
    latent_noise: float = 0.2  # standard deviation of the noise on real latents
    student_share: float = 0.5  # share of the batches whose latents are the student's predictions
    absolute_weight: float = 0.1
    change_weight: float = 0.1
    subject_weight: float = 3.0
    adversarial_weight: float = 0.05  # standard deviation of (corrected target - fake), for pixels in [-1, 1]


@dataclass(frozen=True)
class Patches:
    """Input of the discriminator for a batch: fakes, the true frames at the same place and time, and their latents."""

    fake: Float[Tensor, "n c h w"]
    real: Float[Tensor, "n c h w"]
    latent: Float[Tensor, "n d _h _w"]


@dataclass(frozen=True)
class Pairs:
    """Latents to decode, and the true videos as targets."""

    latent: Latent
    video: Video
    cover: Float[Tensor, "b 1 frames height width"]  # cover of the subjects, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class PairedClips:
    """First latent frames of stored clips with their true frames, which are rendered again."""

    stage: DecoderStage
    made: LatentStage  # configuration that the latent clips were made with
    world: WorldConfig
    preset: Preset
    clips: LatentClips
    student: DiT

    def draw(self, rng: torch.Generator) -> Pairs:
        """Sample a batch that depends on `rng` alone: real latents with noise, or the student's predictions."""
        stage = self.stage
        rows = torch.randint(len(self.clips), (stage.batch,), generator=rng)
        batch = self.clips.beginnings(rows, stage.latent_frames)
        by_student = float(torch.rand((), generator=rng)) < stage.student_share
        eps = normal(batch.x0.shape, rng, self.clips.device)
        latent = self._remade(batch, eps, rng) if by_student else batch.x0 + stage.latent_noise * eps
        scenes = [sample_scene(self.world, self.made.first_seed + row) for row in rows.tolist()]
        drawn = openings(scenes, stage.latent_frames).to(self.clips.device)
        return Pairs(latent, pixels(drawn[..., :3]), drawn[:, None, ..., 3].float() / 255)

    @torch.no_grad()
    def _remade(self, batch: Batch, eps: Tensor, rng: torch.Generator) -> Latent:
        """The student's x0 from real latents noised to one of its levels, each chunk given the clean ones before it."""
        levels = torch.tensor(sigmas_of(self.preset.student))
        picked = torch.randint(len(levels), (len(eps), 1), generator=rng)
        sigma = levels[picked].expand(-1, eps.shape[2]).to(eps)
        x_t = add_noise(batch.x0, eps, sigma)
        chunk = self.preset.stream.chunk
        v = self.student.forward_teacher_forced(batch.x0, x_t, sigma, batch.text, chunk)
        return x0_from_velocity(x_t, v, sigma)


def decoder_stage(context: Context) -> str:
    """Name of the stage whose codec is final: this one if it is done, else stage 1."""
    return STAGE if context.done(STAGE) else CODEC


def run(stage: DecoderStage, latents: LatentStage, world: WorldConfig, student: str, context: Context) -> bool:
    """Tune the decoder; return False when a limit stopped it first.

    Args:
        stage: configuration of the tuning.
        latents: configuration that the latent clips were made with; their frames are rendered again.
        world: world that the clips show.
        student: name of the stage that produced the final student.
        context: the training run.

    Raises:
        TrainingError: the preset's codec is the Wan VAE, which is not trained here.
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
        p.requires_grad = not name.startswith("encoder.")
    channels, space = preset.codec.latent_channels, preset.codec.stride.space
    critic = seeded(
        stage.loop.seed, lambda: PatchDiscriminator(channels, stage.widths, stage.kept, stage.patch, space)
    ).to(device)
    network = load_dit(context, context.folder(student), "student").to(device).eval()
    network.requires_grad_(requires_grad=False)
    clips = LatentClips(context.folder(LATENTS), context.encoder, preset.stream.chunk, device)
    pairs = PairedClips(stage=stage, made=latents, world=world, preset=preset, clips=clips, student=network)
    ema = EMA(codec, stage.loop.ema_decay)
    shown: list[Patches] = []  # patches of the decoder's last step, for the discriminator's step

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
        facts=lambda: held_out_metrics(codec, world, device),
    )


def cut_patches(stage: DecoderStage, drawn: Pairs, decoded: Video, space: int, rng: torch.Generator) -> Patches:
    """Patches of three successive frames on the latent grid; every other one is cut around a subject, if any."""
    video, latent = drawn.video, drawn.latent
    batch, _, frames, height, width = video.shape
    time = (frames - 1) // (latent.shape[2] - 1)  # frames per latent frame; the first latent frame holds one
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
