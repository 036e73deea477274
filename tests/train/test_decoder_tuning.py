"""The decoder alone is tuned: on paired moments, towards what the discriminator takes for real."""

import torch

from longtake.core.noise import rng_for
from longtake.train.decoder_tuning import DecoderStage, Pairs, cut_patches
from longtake.train.discriminator import PatchDiscriminator, correction, discriminator_loss
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig

OPTIM = OptimConfig(adam_lr=1e-3)
STAGE = DecoderStage(
    loop=LoopConfig(steps=1, optim=OPTIM), discriminator=OPTIM, batch=2, latent_frames=3, patch=32, patches=40
)
SPACE, FRAMES = 16, 9


def numbered() -> tuple[Pairs, torch.Tensor]:
    """A video whose pixels say clip, frame, row and column; latents that say clip and latent frame; a decoded twin."""
    video = torch.zeros(2, 3, FRAMES, 64, 96)
    video[:, 0] = torch.arange(2)[:, None, None, None] * 100 + torch.arange(FRAMES)[:, None, None]
    video[:, 1], video[:, 2] = torch.arange(64)[:, None], torch.arange(96)
    latent = torch.zeros(2, 1, 3, 4, 6)
    latent[:, 0] = torch.arange(2)[:, None, None, None] * 100 + torch.arange(3)[:, None, None]
    cover = torch.zeros(2, 1, FRAMES, 64, 96)
    cover[..., 32:48, 64:80] = 1
    return Pairs(latent, video, cover), video + 0.5


def test_patches_show_the_same_moment_of_the_same_clip_with_its_latent() -> None:
    drawn, decoded = numbered()
    patches = cut_patches(STAGE, drawn, decoded, SPACE, rng_for(0, ("patches",)))
    assert patches.fake.shape == patches.real.shape == (40, 9, 32, 32)
    assert torch.equal(patches.fake, patches.real + 0.5)
    red, green, blue = (patches.real.unflatten(1, (3, 3))[:, i] for i in range(3))  # [n, frame, h, w]
    assert torch.equal(red[:, 1:], red[:, :-1] + 1)  # successive frames
    assert bool(((green[:, 0, 0, 0] % SPACE) == 0).all() and ((blue[:, 0, 0, 0] % SPACE) == 0).all())
    clip, first = red[:, 0, 0, 0] // 100, red[:, 0, 0, 0] % 100
    own = [{(f + 3) // 4 for f in range(int(start), int(start) + 3)} for start in first]  # frame 0 is latent frame 0
    wanted = torch.tensor([sum(each) / len(each) for each in own])
    assert torch.allclose(patches.latent[:, 0, 0, 0], clip * 100 + wanted)
    assert set(first.int().tolist()) == set(range(FRAMES - 2))


def test_every_other_patch_shows_a_subject() -> None:
    drawn, decoded = numbered()
    patches = cut_patches(STAGE, drawn, decoded, SPACE, rng_for(0, ("patches",)))
    top, left = patches.real[:, 3, 0, 0], patches.real[:, 6, 0, 0]
    shows = (top <= 32) & (top + 32 >= 48) & (left <= 64) & (left + 32 >= 80)
    assert bool(shows[1::2].all())
    assert not bool(shows[::2].all())


def trained(steps: int) -> tuple[PatchDiscriminator, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A discriminator that has learned that fakes are blurred."""
    torch.manual_seed(0)
    net = PatchDiscriminator(2, (8, 16, 16), kept=4, patch=32, stride=16)
    real = torch.rand(8, 9, 32, 32) * 2 - 1
    fake = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    latent = torch.randn(8, 2, 2, 2)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        loss = discriminator_loss(net(real, latent), net(fake, latent))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net, real, fake, latent


def test_it_learns_to_tell_blurred_frames_from_sharp_ones() -> None:
    net, real, fake, latent = trained(60)
    assert net(real, latent).mean() > 0.5
    assert net(fake, latent).mean() < -0.5


def test_the_correction_has_deviation_one_and_makes_fakes_more_like_the_truth() -> None:
    net, real, fake, latent = trained(60)
    towards = correction(net, fake, real, latent)
    assert abs(float(towards.std()) - 1) < 0.05
    with torch.no_grad():
        before, after, away = (
            (net(x, latent) - net(real, latent)).square().mean()
            for x in (fake, fake + 0.005 * towards, fake - 0.005 * towards)
        )
    assert after < before < away
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


def test_fakes_are_remembered_and_replaced_at_random_when_there_is_no_room() -> None:
    net = PatchDiscriminator(2, (8, 8), kept=3, patch=16, stride=16)
    rng = rng_for(0, ("keep",))
    assert len(net.remembered(2, rng)[0]) == 0
    for value in range(20):
        net.keep(torch.full((1, 9, 16, 16), value / 20), torch.full((1, 2, 1, 1), float(value)), rng)
    assert int(net.num_kept) == 3
    frames, latents = net.remembered(3, rng)
    assert torch.allclose(frames.mean((1, 2, 3)), latents[:, 0, 0, 0] / 20, atol=0.01)  # each with its own latent
    assert latents.max() > 10
    again = PatchDiscriminator(2, (8, 8), kept=3, patch=16, stride=16)
    again.load_state_dict(net.state_dict())  # a checkpoint has them
    assert torch.equal(again.kept_frames, net.kept_frames)
