"""What fits where, counted before anything is loaded."""

import re
from dataclasses import replace

import pytest
import torch

import longtake
from longtake.cli.main import main
from longtake.core.errors import DeviceError
from longtake.core.shapes import PictureSize
from longtake.nets.dit import DiT
from longtake.weights.plan import GIB, MemoryPlan, memory_advice, plan, plan_for
from longtake.weights.presets import preset_named
from longtake.weights.wan.presets import TAEW, WANS, student_preset
from tests.tiny import PRESET

CUDA = torch.device("cuda")


def planned(gib: float, codec_is_light: bool = False) -> MemoryPlan:
    preset = student_preset("self-forcing")
    return plan(replace(preset, codec=TAEW) if codec_is_light else preset, CUDA, round(gib * GIB))


def test_a_large_card_holds_all_of_it() -> None:
    made = planned(80)
    assert made.placement.dtype is torch.bfloat16
    assert made.placement.window == 21
    assert made.placement.text_device.type == "cuda"
    assert made.placement.text_stays
    assert not made.placement.text_int8
    assert made.parts["network"] == 2 * 1_418_996_800
    assert made.parts["keys and values"] == pytest.approx(18 * 287.5e6, rel=1e-3)  # 287.5 MB a latent frame


@pytest.mark.parametrize("codec_is_light", [False, True])
def test_less_memory_never_gives_more_and_always_fits(codec_is_light: bool) -> None:
    windows = []
    for gib in (80, 48, 32, 24, 16, 12):
        try:
            made = planned(gib, codec_is_light)
        except DeviceError:
            windows.append(0)
            continue
        assert made.peak_bytes <= gib * GIB
        assert (made.placement.window - 3) % 3 == 0
        windows.append(made.placement.window)
    assert windows == sorted(windows, reverse=True)
    assert windows[0] == 21
    assert windows[-1] < 21


def test_the_light_codec_leaves_room() -> None:
    heavy, light = planned(24), planned(24, codec_is_light=True)
    assert light.placement.window >= heavy.placement.window
    assert light.parts["codec"] < heavy.parts["codec"]


def test_what_cannot_fit_says_what_would() -> None:
    with pytest.raises(DeviceError, match=r"wan-14b at 832x480 needs at least \d\d\.\d GiB, cuda has 16.0 GiB free"):
        plan(WANS["wan-14b"], CUDA, 16 * GIB)


@pytest.mark.parametrize(
    "name", ["wan-1.3b", "wan-14b", "self-forcing", "causal-forcing-2step", "longlive", "krea-14b"]
)
@pytest.mark.parametrize("gib", [6, 8, 12, 16, 24, 32, 48, 80])
def test_every_card_gets_a_plan_or_the_nearest_that_fits(name: str, gib: int) -> None:
    preset, teacher = preset_named(name), name in WANS
    made, advice = None, ""
    try:
        made = plan(preset, CUDA, gib * GIB, teacher=teacher)
    except DeviceError as error:
        advice = str(error)
    found = re.search(r"nearest that fits is (?:--size (\d+)x(\d+))? ?(--fp8)? \((.*) GiB\)", advice)
    if found is not None:
        size = None if found[1] is None else PictureSize(height=int(found[2]), width=int(found[1]))
        made = plan(preset, CUDA, gib * GIB, size, teacher=teacher, fp8=found[3] is not None)
    if made is None:
        assert re.search(r"no size of picture fits: the network alone takes 1[34]\.\d GiB in 8 bits", advice)
        assert "14b" in name
        assert gib <= 16
    else:
        assert made.peak_bytes <= gib * GIB


def test_a_cpu_takes_everything_in_full_precision() -> None:
    made = plan_for(PRESET, "cpu")
    assert made.placement.dtype is torch.float32
    assert made.placement.window == PRESET.stream.window
    with torch.device("meta"):
        count = sum(p.numel() for p in DiT(PRESET.dit).parameters())
    assert made.parts["network"] == 4 * count


def test_smaller_pictures_need_less() -> None:
    large = plan_for(PRESET, "cpu")
    small = plan_for(PRESET, "cpu", PictureSize(height=16, width=16))
    assert small.peak_bytes < large.peak_bytes


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(DeviceError, match=device):
        longtake.open("tiny-world", device=device)


def test_full_memory_gives_advice() -> None:
    with pytest.raises(DeviceError, match=r"longtake models plan wan-1\.3b"), memory_advice("wan-1.3b"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_command_tells_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "plan", "causvid", "--gpu-memory", "24"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("causvid on cuda: bfloat16, window ")
    assert "keys and values" in told
    assert main(["models", "plan", "causvid", "--gpu-memory", "4"]) == 2
    assert "needs at least" in capsys.readouterr().err
    assert main(["models", "plan", "causvid", "--gpu-memory", "-1"]) == 2
