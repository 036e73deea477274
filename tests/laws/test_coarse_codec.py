"""The coarse codec codes in pieces as at once, holds still what is still, and knows the cells of its grid."""

from dataclasses import replace

import pytest
import torch

from longtake.core.configs import CoarseCodecConfig
from longtake.core.errors import ShapeError
from longtake.nets.coarse_codec import CoarseCodec, moved_layers
from longtake.nets.light_codec import CodecState

FRAMES = 25
CONFIG = CoarseCodecConfig(
    latent_channels=4,
    width=16,
    decoder_blocks=2,
    middle_width=12,
    leave_width=8,
    grid=(2, 3),
    local_basis=4,
)


def codec_of(config: CoarseCodecConfig = CONFIG, dtype: torch.dtype = torch.float64) -> CoarseCodec:
    """A codec whose weights are all random: zeros would hide what passes through them."""
    rng = torch.Generator().manual_seed(0)
    codec = CoarseCodec(config)
    with torch.no_grad():
        for p in codec.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5))
    return codec.to(dtype).eval()


def video(dtype: torch.dtype, frames: int = FRAMES) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return 2 * torch.rand(2, 3, frames, 32, 48, generator=rng, dtype=dtype) - 1


@pytest.mark.parametrize("splits", [(1,) * 7, (3, 3, 1), (1, 2, 4), (2, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_chunked_decoding_equals_whole(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    codec = codec_of(dtype=dtype)
    latent, _ = codec.encode(video(dtype), CodecState())
    assert latent.shape == (2, 4, 7, 2, 3)
    whole, _ = codec.decode(latent, CodecState())
    assert whole.shape == (2, 3, FRAMES, 32, 48)
    state, pieces = CodecState(), []
    for piece in latent.split(splits, 2):
        frames, state = codec.decode(piece, state)
        pieces.append(frames)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@pytest.mark.parametrize("splits", [(1, 4, 4, 4, 4, 4, 4), (9, 16), (1, 24), (5, 12, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_chunked_encoding_equals_whole(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    codec = codec_of(dtype=dtype)
    whole, _ = codec.encode(video(dtype), CodecState())
    state, pieces = CodecState(), []
    for piece in video(dtype).split(splits, 2):
        latent, state = codec.encode(piece, state)
        pieces.append(latent)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@torch.no_grad()
def test_control_the_decoder_sees_what_came_before() -> None:
    codec = codec_of()
    latent, _ = codec.encode(video(torch.float64), CodecState())
    whole, _ = codec.decode(latent, CodecState())
    _, started = codec.decode(latent[:, :, :2], CodecState())
    late, _ = codec.decode(latent[:, :, 2:], CodecState(tuple(0 * f for f in started.frames), started=True))
    assert (late - whole[:, :, 5:]).abs().max() > 1e-3


@torch.no_grad()
def test_the_encoder_mixes_latents_as_pixels_are_mixed() -> None:
    codec, frames, share = codec_of(), video(torch.float64), 0.3
    mixed, _ = codec.encode(share * frames + (1 - share) * frames.flip(0), CodecState())
    latent, _ = codec.encode(frames, CodecState())
    assert (mixed - share * latent - (1 - share) * latent.flip(0)).abs().max() < 1e-12


@torch.no_grad()
def test_a_cell_of_a_latent_is_of_its_own_pixels_alone() -> None:
    codec, frames = codec_of(), video(torch.float64)
    changed = frames.clone()
    changed[:, :, 5:9, 16:32, 32:48] *= -1  # the third latent frame, second row, third column
    before, after = (codec.encode(f, CodecState())[0] for f in (frames, changed))
    assert ((before - after).abs().amax((0, 1)) > 0).nonzero().tolist() == [[2, 1, 2]]


@torch.no_grad()
def test_latents_do_not_feel_later_frames() -> None:
    codec = codec_of()
    frames = video(torch.float64)
    changed = frames.clone()
    changed[:, :, 9:] *= -1
    before, after = (codec.encode(f, CodecState())[0] for f in (frames, changed))
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


@torch.no_grad()
def test_a_still_video_is_the_same_latent_from_the_first_to_the_last() -> None:
    codec = codec_of()
    still = video(torch.float64, 1).expand(-1, -1, FRAMES, -1, -1)
    latent, _ = codec.encode(still, CodecState())
    assert (latent - latent[:, :, :1]).abs().max() < 1e-12
    decoded, _ = codec.decode(latent, CodecState())
    later = decoded[:, :, 1:].unflatten(2, (-1, 4))
    assert (later - later[:, :, :1]).abs().max() < 1e-12  # every latent frame's pictures are those of the first


@torch.no_grad()
def test_the_frames_of_a_latent_frame_are_one_picture_where_nothing_is_displaced() -> None:
    codec = codec_of()
    for p in codec.motion_head.parameters():
        p.zero_()
    decoded, _ = codec.decode(torch.randn(1, 4, 3, 2, 3, dtype=torch.float64), CodecState())
    pictures = decoded[:, :, 1:].unflatten(2, (2, 4))
    assert (pictures - pictures[:, :, :, :1]).abs().max() < 1e-12
    assert (pictures[:, :, 0] - pictures[:, :, 1]).abs().max() > 1e-3


def test_a_front_is_moved_before_its_backdrop_by_whole_and_half_pixels() -> None:
    backdrop = torch.full((1, 3, 4, 8), -1.0)
    front, opacity = torch.zeros(1, 3, 4, 8), torch.full((1, 1, 4, 8), -50.0)
    front[..., 2, 5], opacity[..., 2, 5] = 1.0, 50.0
    displacement = torch.zeros(1, 2, 3, 4, 8)
    displacement[0, 0, 1] = 2.0  # each pixel shows what lies two pixels to its right
    displacement[0, 1, 2] = 1.0  # or one below it
    frames = moved_layers(backdrop, front, opacity, displacement)[0, 0]
    assert [(frames[k] > 0.99).nonzero().tolist() for k in range(3)] == [[[2, 5]], [[2, 3]], [[1, 5]]]
    assert (frames < -0.99).sum() == 3 * 31


@torch.no_grad()
def test_a_cell_knows_where_it_is() -> None:
    codec = codec_of()
    latent = torch.zeros(1, 4, 1, 1, 1, dtype=torch.float64)
    one, other = (codec.decode(latent, CodecState(), origin=at)[0] for at in ((0, 1), (1, 2)))
    assert (one - other).abs().max() > 1e-3
    anywhere = codec_of(replace(CONFIG, grid=None))
    assert torch.equal(*(anywhere.decode(latent, CodecState(), origin=at)[0] for at in ((0, 1), (1, 2))))


def test_pictures_of_another_size_are_refused_by_a_codec_with_a_grid() -> None:
    codec = codec_of(dtype=torch.float32)
    with pytest.raises(ShapeError, match="makes pictures of 48x32, got 64x32"):
        codec.encode(torch.zeros(1, 3, 1, 32, 64), CodecState())
    with pytest.raises(ShapeError, match="makes pictures of 48x32, got 16x16"):
        codec.decode(torch.zeros(1, 4, 1, 1, 1), CodecState())
    with pytest.raises(ShapeError, match="the codec expects 4"):
        codec.decode(torch.zeros(1, 5, 1, 2, 3), CodecState())
    with pytest.raises(ShapeError, match="height must be a multiple of 16"):
        codec.encode(torch.zeros(1, 3, 1, 24, 48), CodecState())
    latent, _ = codec_of(replace(CONFIG, grid=None), torch.float32).encode(torch.zeros(1, 3, 1, 32, 64), CodecState())
    assert latent.shape == (1, 4, 1, 2, 4)
