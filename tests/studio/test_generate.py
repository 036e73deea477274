"""Takes with cues known in advance, on random weights: streaming, reproducible, with clear errors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import longtake
from longtake.core.errors import DeviceError, InputError, WeightsError
from longtake.core.shapes import PictureSize
from longtake.nets.dit import DiT, RotatedContext
from longtake.nets.kv_cache import KVCache
from longtake.sample.cues import TimedPrompt, cues_from
from longtake.sample.model import Model, open_model
from longtake.studio.controller import Chunk
from longtake.studio.generate import generate
from longtake.weights.checkpoint import load_into, read_weights
from tests.tiny import DIT, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(str(folder))


def take(model: Model, prompt: str = "a tiger walks", seconds: float = 2.0, **options) -> list[Chunk]:
    return list(generate(model, cues_from(prompt, [], seconds), seconds=seconds, **options))


def pictures(chunks: list[Chunk]) -> torch.Tensor:
    return torch.cat([chunk.frames for chunk in chunks])


def test_a_take_has_the_frames_it_promised(model: Model) -> None:
    chunks = take(model, seconds=2.0)
    assert [len(c.frames) for c in chunks] == [9, 12, 12]
    assert [c.start_s for c in chunks] == [0.0, 9 / 16, 21 / 16]
    assert chunks[0].frames.shape[1:] == (32, 48, 3)
    assert pictures(chunks).float().std() > 1


def test_the_same_arguments_give_the_same_bits(model: Model) -> None:
    first, second = (pictures(take(model, seed=3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, pictures(take(model, seed=4)))


def test_a_longer_take_begins_like_a_shorter_one(model: Model) -> None:
    short, long = pictures(take(model, seconds=1.0)), pictures(take(model, seconds=6.0))
    assert torch.equal(long[: len(short)], short)


def test_a_cue_changes_the_chunks_after_it_and_none_before(model: Model) -> None:
    plain = take(model, seconds=3.0)
    cued = take(model, "a tiger walks, then snow starts to fall", seconds=3.0)
    applied = next(c.index for c in cued if c.prompt == "a tiger walks, snow starts to fall")
    assert cued[applied].start_s >= 1.5 > cued[applied - 1].start_s
    for a, b in zip(plain, cued, strict=True):
        assert torch.equal(a.frames, b.frames) == (a.index < applied)


def test_pictures_leave_before_the_next_chunk_is_begun(model: Model) -> None:
    calls = []
    dit = model.dit
    counted = replace(model, codec=model.codec)
    hook = dit.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    chunks = generate(counted, cues_from("a cat", [], 3), seconds=3)
    next(chunks)
    steps = model.preset.student.num_steps
    assert len(calls) == steps  # no clean pass yet
    next(chunks)
    assert len(calls) == 2 * steps + 1
    for _ in chunks:
        pass
    hook.remove()
    assert len(calls) == 5 * (steps + 1) - 1  # the last chunk's clean pass is never run


def test_memory_stays_constant_however_long_the_take(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten windows long: the number of remembered keys stops growing."""
    keys: list[int] = []
    right = DiT.rotated_context

    def counted(self: DiT, cache: KVCache, shape: tuple[int, ...]) -> RotatedContext:
        past = right(self, cache, shape)
        keys.append(0 if past.kv is None else past.kv[0].shape[2])
        return past

    monkeypatch.setattr(DiT, "rotated_context", counted)
    assert 2 * len(take(model, seconds=20.0)) - 1 == len(keys) > 40
    keys = keys[::2]  # of denoising; those between are of clean passes
    tokens = 3 * 2 * 3  # of a chunk
    assert keys[:3] == [0, tokens, 2 * tokens]
    assert set(keys[3:]) == {2 * tokens}


def test_any_size_that_fits_the_stride(model: Model) -> None:
    chunks = take(model, seconds=0.5, size=PictureSize(height=48, width=64))
    assert chunks[0].frames.shape[1:] == (48, 64, 3)


@pytest.mark.parametrize("size", [PictureSize(height=50, width=64), PictureSize(height=0, width=64)])
def test_a_size_that_does_not_fit_is_told(model: Model, size: PictureSize) -> None:
    with pytest.raises(InputError, match="positive multiple of 16"):
        take(model, seconds=0.5, size=size)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_cannot_be_is_told(model: Model, seconds: float) -> None:
    with pytest.raises(InputError, match="seconds must be"):
        list(generate(model, [TimedPrompt(at_s=0.0, prompt="a cat")], seconds=seconds))


@pytest.mark.parametrize("steps", [0, -2, 5000])
def test_a_number_of_steps_that_cannot_be_is_told(model: Model, steps: int) -> None:
    with pytest.raises(InputError, match="steps must be"):
        take(model, steps=steps)


def test_the_teacher_makes_whole_clips_and_no_longer_ones(folder: Path) -> None:
    teacher = open_model(str(folder), teacher=True)
    chunks = take(teacher, seconds=2.0)
    assert [len(c.frames) for c in chunks] == [9, 12, 12]
    with pytest.raises(InputError, match=r"at most 2\.06 s"):
        take(teacher, seconds=3.0)


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model"):
        open_model(str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="manifest"):
        open_model(str(tmp_path))


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    path = folder / "student.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged or was exchanged"):
        open_model(str(folder))


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    with pytest.raises(WeightsError, match="tensors are missing"):
        load_into(DiT(replace(DIT, num_layers=3)), read_weights(folder, "student"), "student")
    with pytest.raises(WeightsError, match="another shape"):
        load_into(DiT(replace(DIT, ffn_dim=32)), read_weights(folder, "student"), "student")
    with pytest.raises(WeightsError, match="are unknown"):
        load_into(DiT(replace(DIT, num_layers=1)), read_weights(folder, "student"), "student")


def test_without_a_compiler_passes_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match=r"need a C\+\+ compiler"):
        open_model(str(write_model(tmp_path / "model")), compiled=True)


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_take_of_compiled_passes_is_the_same_take(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model"))
    made = []
    for compiled in (False, True):
        with longtake.open(model, compiled=compiled) as studio:
            take = studio.take("a tiger")
            chunks = list(take.stream(chunks=4))  # memory of every length
            take.cue(guidance=2.0)
            made.append(torch.cat([chunk.frames for chunk in (*chunks, *take.stream(chunks=1))]))
    assert (made[0].float() - made[1].float()).abs().mean() < 0.01
