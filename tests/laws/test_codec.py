"""Coding in pieces equals coding at once, for any split, in fp64 to 1e-12 and in fp32 to 1e-5."""

from dataclasses import replace

import pytest
import torch

from longtake.core.configs import CodecConfig
from longtake.core.errors import ShapeError
from longtake.nets.light_codec import CodecState, LightCodec
from tests.tiny import random_codec

FRAMES = 25


def video(dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return 2 * torch.rand(2, 3, FRAMES, 16, 24, generator=rng, dtype=dtype) - 1


@pytest.mark.parametrize("splits", [(1,) * 7, (3, 3, 1), (1, 2, 4), (2, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_chunked_decoding_equals_whole(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    codec = random_codec(dtype=dtype)
    latent, _ = codec.encode(video(dtype), CodecState())
    whole, _ = codec.decode(latent, CodecState())
    assert whole.shape == (2, 3, FRAMES, 16, 24)
    state, pieces = CodecState(), []
    for piece in latent.split(splits, 2):
        frames, state = codec.decode(piece, state)
        pieces.append(frames)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@pytest.mark.parametrize("splits", [(1, 4, 4, 4, 4, 4, 4), (9, 16), (1, 24), (5, 12, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_chunked_encoding_equals_whole(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    codec = random_codec(dtype=dtype)
    whole, _ = codec.encode(video(dtype), CodecState())
    assert whole.shape[2] == 7
    state, pieces = CodecState(), []
    for piece in video(dtype).split(splits, 2):
        latent, state = codec.encode(piece, state)
        pieces.append(latent)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@torch.no_grad()
def test_control_forgetting_the_state_is_seen() -> None:
    codec = random_codec()
    latent, _ = codec.encode(video(torch.float64), CodecState())
    whole, _ = codec.decode(latent, CodecState())
    first, state = codec.decode(latent[:, :, :3], CodecState())
    forgetful, _ = codec.decode(latent[:, :, 3:], CodecState(started=True))
    assert (torch.cat((first, forgetful), 2) - whole).abs().max() > 1e-3
    remembered, _ = codec.decode(latent[:, :, 3:], state)
    assert (remembered - forgetful).abs().max() > 1e-3


@torch.no_grad()
def test_a_state_is_a_value() -> None:
    codec = random_codec()
    latent, _ = codec.encode(video(torch.float64), CodecState())
    _, state = codec.decode(latent[:, :, :3], CodecState())
    once, _ = codec.decode(latent[:, :, 3:], state)
    again, _ = codec.decode(latent[:, :, 3:], state)
    assert torch.equal(once, again)


@torch.no_grad()
def test_latents_do_not_feel_later_frames() -> None:
    codec = random_codec()
    frames = video(torch.float64)
    changed = frames.clone()
    changed[:, :, 9:] *= -1
    before, after = (codec.encode(f, CodecState())[0] for f in (frames, changed))
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


def test_wrong_frames_channels_and_sides_are_named() -> None:
    codec = random_codec(dtype=torch.float32)
    with pytest.raises(ShapeError, match="1 \\+ 4 n frames"):
        codec.encode(torch.zeros(1, 3, 4, 16, 16), CodecState())
    with pytest.raises(ShapeError, match="multiple of 4"):
        codec.encode(torch.zeros(1, 3, 3, 16, 16), CodecState(started=True))
    with pytest.raises(ShapeError, match="width must be a multiple of 8"):
        codec.encode(torch.zeros(1, 3, 1, 16, 20), CodecState())
    with pytest.raises(ShapeError, match="the codec expects 4"):
        codec.decode(torch.zeros(1, 5, 1, 2, 2), CodecState())


@torch.no_grad()
def test_signals_keep_their_size_through_a_new_codec() -> None:
    torch.manual_seed(0)
    codec = LightCodec(
        CodecConfig(
            pixel_patch=2,
            encoder_time=(4, 1),
            decoder_time=(2, 2),
            space=(2, 2),
            encoder_widths=(32, 32, 32),
            decoder_widths=(32, 32, 32),
        )
    )
    rng = torch.Generator().manual_seed(0)
    latent, _ = codec.encode(torch.randn(1, 3, 9, 64, 64, generator=rng), CodecState())
    decoded, _ = codec.decode(torch.randn(1, 16, 3, 8, 8, generator=rng), CodecState())
    assert 0.1 < latent.std() < 3
    assert 0.1 < decoded.std() < 3


@torch.no_grad()
def test_unit_pixels_are_the_same_codec_seen_through_another_scale() -> None:
    signed = random_codec()
    unit = LightCodec(replace(signed.config, pixels="unit")).double()
    unit.load_state_dict(signed.state_dict())
    clip = video(torch.float64)
    a, _ = signed.encode(clip, CodecState())
    b, _ = unit.encode(2 * clip - 1, CodecState())
    assert torch.allclose(a, b, atol=1e-12)
    decoded, _ = signed.decode(a, CodecState())
    scaled, _ = unit.decode(a, CodecState())
    assert torch.allclose(2 * decoded - 1, scaled, atol=1e-12)


def test_the_default_is_taehv_for_wan_by_name_and_size() -> None:
    with torch.device("meta"):
        codec = LightCodec(CodecConfig())
    sizes = {part: sum(p.numel() for p in getattr(codec, part).parameters()) for part in ("encoder", "decoder")}
    assert sizes == {"encoder": 1_470_928, "decoder": 9_844_611}
    assert {"decoder.1.weight", "decoder.3.conv.4.bias", "encoder.4.conv.0.weight"} <= codec.state_dict().keys()
