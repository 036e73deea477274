"""A take that goes on in another process, from its script and its latents."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import longtake
from longtake.core.configs import StreamConfig
from longtake.core.shapes import Latent, Pictures
from longtake.sample.window import kept_frames, num_apart
from longtake.studio.script import Script
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import path_to
from tests.tiny import PRESET, write_model

CHUNKS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model with a sink, and a window that is full after four chunks."""
    preset = replace(PRESET, stream=StreamConfig(chunk=3, window=12, sink=3))
    return write_model(tmp_path_factory.mktemp("model"), preset=preset)


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    with longtake.open(str(folder)) as studio:
        yield studio


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[Studio]:
    """That of the process that goes on."""
    with longtake.open(str(folder)) as studio:
        yield studio


def directed(studio: Studio) -> Take:
    """A take with something of everything ahead of it."""
    take = studio.take("a tiger walks", seed=3)
    take.cue("snow falls", at=2)
    take.cue("night", at=5, transition="flush")
    take.cue("a car", at=7, transition="cut")
    take.cue("fog", at=9, fade=3)
    take.cue(seed=9, steps=1, at=10)
    return take


def clip_gone_on_with(studio: Studio) -> Take:
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (40, 32, 48, 3), generator=rng, dtype=torch.uint8)
    return studio.extend(pictures, "a tiger walks", seed=1)


def made(take: Take, chunks: int) -> tuple[list[Pictures], list[Latent]]:
    frames, latents = [], []
    for chunk in take.stream(chunks=chunks):
        frames.append(chunk.frames)
        latents.append(take.latents())
    return frames, latents


def same(a: list[Pictures], b: list[Pictures]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def handed_over(take: Take, *, rebuilt: bool) -> Script:
    script = take.full_script()
    assert take.head is not None
    added = [take.head.idx + 1] if rebuilt else []
    script = script.model_copy(update={"rebuilt": [*script.rebuilt, *added]})
    return Script.model_validate_json(script.model_dump_json())


@pytest.mark.parametrize("begin", [directed, clip_gone_on_with])
def test_from_all_latents_it_is_the_take_that_never_moved(studio: Studio, other: Studio, begin) -> None:
    whole, _ = made(begin(studio), CHUNKS)
    for at in (1, 4, 6, 8, 11):
        take = begin(studio)
        _, latents = made(take, at)
        resumed = other.resume(handed_over(take, rebuilt=False), latents)
        assert same(made(resumed, CHUNKS - at)[0], whole[at:])
        assert resumed.script().rebuilt == []


@pytest.mark.parametrize("begin", [directed, clip_gone_on_with])
@pytest.mark.parametrize("at", [1, 3, 5, 7, 9, 11])
def test_from_the_window_it_is_what_its_script_replays(studio: Studio, other: Studio, begin, at: int) -> None:
    take = begin(studio)
    before, latents = made(take, at)
    resumed = other.resume(handed_over(take, rebuilt=True), latents)
    after, _ = made(resumed, CHUNKS - at)
    script = resumed.script()
    assert same(made(studio.replay(script), CHUNKS)[0], [*before, *after])
    assert resumed.head is not None
    assert same(list(resumed.frames()), [*before, *after])  # as they are saved to a file


def test_one_that_moves_again_and_again_is_still_what_its_script_replays(studio: Studio, other: Studio) -> None:
    take, frames, latents = directed(studio), [], []
    for hop in range(CHUNKS):
        more, of_them = made(take, 1)
        frames, latents = [*frames, *more], [*latents, *of_them]
        take = (other if hop % 2 else studio).resume(handed_over(take, rebuilt=True), latents)
    script = handed_over(take, rebuilt=False)
    assert len(script.rebuilt) >= CHUNKS - 2
    assert same(made(studio.replay(script), CHUNKS)[0], frames)


def test_a_branch_goes_on_from_the_take_that_it_left_and_both_may_be_gone_back_to(
    studio: Studio, other: Studio
) -> None:
    take = directed(studio)
    _, latents = made(take, 6)
    branch = take.retake(at=4, prompt="a boat")
    branch.cue("rain", at=6)
    _, of_branch = made(branch, 1)
    moved = other.resume(handed_over(take, rebuilt=False), latents)
    moved_branch = other.resume(handed_over(branch, rebuilt=True), of_branch, branch_of=moved.retake(at=4))
    after, _ = made(moved_branch, 4)
    assert moved_branch.script().rebuilt == [5]
    assert same(made(studio.replay(moved_branch.script()), 9)[0][5:], after)
    again = made(moved.retake(at=6), 3)[0]
    assert same(again, made(take.retake(at=6), 3)[0])
    moved_branch.rewind(to=6)
    assert same(made(moved_branch, 2)[0], after[2:4])


@pytest.mark.parametrize("begin", [directed, clip_gone_on_with])
def test_the_window_is_what_memory_holds(studio: Studio, begin) -> None:
    take = begin(studio)
    for _ in take.stream(chunks=CHUNKS):
        path = path_to(take.head)
        memory = studio.engine.snapshots.find(take.head).memory
        assert memory.newest is not None
        stop = memory.cache.stop + memory.newest.shape[2]
        held = [*((block.start, block.stop) for block in memory.cache.blocks), (memory.cache.stop, stop)]
        assert kept_frames([node.plan for node in path], studio.engine.sampler.stream) == held


def test_pieces_before_a_gap_are_apart() -> None:
    assert num_apart([(0, 3)]) == 0
    assert num_apart([(0, 3), (3, 6)]) == 0
    assert num_apart([(0, 3), (9, 12), (12, 15)]) == 1
