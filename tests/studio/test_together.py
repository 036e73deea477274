"""Chunks of several takes made together are those that each would have made alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.core.cue import Transition
from longtake.studio.controller import Chunk, NoChunk, make_chunks
from longtake.studio.studio import Studio, open_studio
from longtake.studio.takes import Take
from tests.tiny import PRESET, write_model


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    preset = replace(PRESET, dit=replace(PRESET.dit, text_len=48))  # longer than what most prompts need
    with open_studio(str(write_model(tmp_path, preset=preset))) as studio:
        yield studio


def made(studio: Studio, prompt: str, seed: int, chunks: int, guidance: float = 1.0) -> Take:
    take = studio.take(prompt, seed=seed, guidance=guidance)
    for _ in range(chunks):
        take.controller.next_chunk()
    return take


@pytest.mark.parametrize(("ages", "guidance"), [((0, 0, 0), 1), ((1, 1, 1), 2), ((4, 7, 5), 1)])
def test_a_chunk_does_not_depend_on_those_made_beside_it(
    studio: Studio, ages: tuple[int, int, int], guidance: float
) -> None:
    prompts = (
        "a tiger walks through a forest",
        "a red boat on the sea",
        "an elephant walks along a wide mountain road at sunset, then it begins to rain and fog",
    )
    wanted = list(enumerate(zip(prompts, ages, strict=True)))
    together = [made(studio, p, seed, age, guidance) for seed, (p, age) in wanted]
    alone = [made(studio, p, seed, age, guidance) for seed, (p, age) in wanted]
    assert len({take.controller.layout for take in together}) == 1
    for _ in range(2):  # the second time on memory that was made together
        chunks = make_chunks([take.controller for take in together])
        for chunk, other in zip(chunks, (take.controller.next_chunk() for take in alone), strict=True):
            assert isinstance(chunk, Chunk)
            assert isinstance(other, Chunk)
            assert (chunk.index, chunk.prompt, chunk.start_s) == (other.index, other.prompt, other.start_s)
            assert (chunk.frames.int() - other.frames.int()).abs().max() <= 1
    for one, other in zip(together, alone, strict=True):
        assert one.head is not None
        assert other.head is not None
        mine, theirs = studio.engine.spool.read(one.head), studio.engine.spool.read(other.head)
        assert torch.allclose(mine, theirs, atol=1e-4)
        assert not torch.equal(mine, studio.engine.spool.read(together[0].head)) or one is together[0]  # type: ignore[arg-type]


def test_takes_of_other_ages_settings_or_transitions_are_made_in_other_steps(studio: Studio) -> None:
    young, old, cued = made(studio, "a tiger", 0, 1), made(studio, "a tiger", 0, 5), made(studio, "a tiger", 0, 5)
    assert young.controller.layout != old.controller.layout
    assert cued.controller.layout == old.controller.layout
    cued.cue("night falls")
    assert cued.controller.layout != old.controller.layout
    guided = made(studio, "a tiger", 0, 5, guidance=2)
    assert guided.controller.layout != old.controller.layout
    guided.rewind(to=3)
    guided.cue(image=torch.zeros(1, 32, 48, 3, dtype=torch.uint8))
    assert guided.controller.layout is None


@pytest.mark.parametrize("transition", ["recache", "flush", "cut"])
def test_transitions_of_several_takes_are_those_of_each_alone(studio: Studio, transition: Transition) -> None:
    ages = (4, 7)
    groups = [[made(studio, f"a tiger {seed}", seed, age) for seed, age in enumerate(ages)] for _ in range(2)]
    for take in (take for group in groups for take in group):
        take.cue(prompt="a red boat on the sea", transition=transition)
    together, alone = groups
    for _ in range(3):
        chunks = make_chunks([take.controller for take in together])
        for chunk, other in zip(chunks, (take.controller.next_chunk() for take in alone), strict=True):
            assert isinstance(chunk, Chunk)
            assert isinstance(other, Chunk)
            assert (chunk.index, chunk.start_s) == (other.index, other.start_s)
            assert (chunk.frames.int() - other.frames.int()).abs().max() <= 1
    for one, other in zip(together, alone, strict=True):
        mine, theirs = (take.controller.engine.snapshots.find(take.head).memory for take in (one, other))
        assert [(b.start, b.stop) for b in mine.cache.blocks] == [(b.start, b.stop) for b in theirs.cache.blocks]


def test_one_that_is_overtaken_is_left_out_and_can_be_made_again(studio: Studio) -> None:
    calm, hasty = made(studio, "a tiger", 1, 4), made(studio, "a boat", 2, 4)
    asked = 0
    before = hasty.controller.should_continue

    def changes_its_mind(done: bool) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            hasty.cue("night falls")
        return before(done)

    hasty.controller.should_continue = changes_its_mind  # type: ignore[method-assign]
    first, second = make_chunks([calm.controller, hasty.controller])
    assert isinstance(first, Chunk)
    assert second is NoChunk.CANCELLED
    assert hasty.controller.layout is None  # alone, where no second cue overtakes it
    again = hasty.controller.next_chunk()
    assert isinstance(again, Chunk)
    assert again.prompt == "a boat, night falls"
    assert hasty.controller.layout is not None
