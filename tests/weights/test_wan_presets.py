"""Wan at its full size, on a device that holds no numbers; and how each published student is sampled."""

import pytest
import torch

from longtake.core.configs import SamplingConfig, WanVAEConfig
from longtake.core.errors import ConfigError, InputError
from longtake.flow.schedule import sigmas_of
from longtake.nets.codec import codec_for
from longtake.nets.dit import DiT
from longtake.weights.wan.presets import STUDENTS, TAEW, WANS, student_preset


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"), [("wan-1.3b", 825, 1_418_996_800), ("wan-14b", 1095, 14_288_491_584)]
)
def test_the_published_sizes(name: str, tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        net = DiT(WANS[name].dit)
    shapes = {key: tuple(t.shape) for key, t in net.state_dict().items()}
    dim, ffn = WANS[name].dit.dim, WANS[name].dit.ffn_dim
    assert len(shapes) == tensors
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert shapes["patch_embedding.weight"] == (dim, 16, 1, 2, 2)
    assert shapes["time_projection.1.weight"] == (6 * dim, dim)
    assert shapes["head.head.weight"] == (64, dim)
    assert shapes["blocks.29.ffn.0.weight"] == (ffn, dim)


def test_codecs_have_the_published_sizes() -> None:
    for config, parameters in ((WanVAEConfig(), 126_892_531), (TAEW, 11_310_000)):
        net = codec_for(config)
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, rel=2e-3)
        assert net.config.stride == WANS["wan-1.3b"].codec.stride


def test_each_student_is_sampled_as_it_was_distilled() -> None:
    levels = {name: sigmas_of(student_preset(name).student) for name in STUDENTS}
    assert levels["causvid"] == (1.0, 0.757, 0.522)
    four = pytest.approx((1.0, 0.9375, 0.833333, 0.625), abs=1e-6)
    for name in ("self-forcing", "causal-forcing", "causal-forcing-frame", "longlive", "memflow", "krea-14b"):
        assert levels[name] == four
    assert levels["causal-forcing-2step"] == pytest.approx((1.0, 0.833333), abs=1e-6)
    assert levels["causal-forcing-1step"] == (1.0,)
    assert levels["streamdiffusion-v2"] == (0.7, 0.5, 0.4, 0.2)
    first = {name: sigmas_of(student_preset(name).student, first=True) for name in STUDENTS}
    assert first["causal-forcing-1step"] == first["causal-forcing-2step"] == four
    assert first["self-forcing"] == levels["self-forcing"]
    assert student_preset("causal-forcing-frame").stream.chunk == 1
    assert student_preset("causvid").stream.chunk == 3


def test_another_number_of_steps_is_spaced_evenly() -> None:
    own = STUDENTS["causvid"].sampling
    assert own.with_steps(None) == own.with_steps(3) == own
    assert sigmas_of(own.with_steps(2)) == pytest.approx((1.0, 8 / 9))


def test_an_unknown_student_and_impossible_levels_are_refused() -> None:
    with pytest.raises(InputError, match="known; give one of: causvid"):
        student_preset("causvit")
    with pytest.raises(ConfigError, match="as many sigmas"):
        SamplingConfig(num_steps=2, shift=1.0, sigmas=(1.0,))
    with pytest.raises(ConfigError, match="sigmas fall"):
        SamplingConfig(num_steps=2, shift=1.0, sigmas=(0.5, 0.7))
    with pytest.raises(ConfigError, match="first_sigmas fall"):
        SamplingConfig(num_steps=2, shift=1.0, first_sigmas=(0.5, 0.7))
