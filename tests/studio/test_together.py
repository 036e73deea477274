"""Chunks of several takes made together are those that each would have made alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from longtake.studio.studio import Studio, open_studio
from longtake.studio.takes import Take
from tests.tiny import write_model


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with open_studio(str(write_model(tmp_path))) as studio:
        yield studio


def made(studio: Studio, prompt: str, seed: int, chunks: int, guidance: float = 1.0) -> Take:
    take = studio.take(prompt, seed=seed, guidance=guidance)
    for _ in range(chunks):
        take.make_next()
    return take


@pytest.mark.parametrize(("ages", "guidance"), [((0, 0, 0), 1), ((1, 1, 1), 2), ((4, 7, 5), 1)])
def test_a_chunk_does_not_depend_on_those_made_beside_it(
    studio: Studio, ages: tuple[int, int, int], guidance: float
) -> None:
    prompts = ("a tiger walks through a forest", "a red boat on the sea", "an elephant")
    wanted = list(enumerate(zip(prompts, ages, strict=True)))
    together = [made(studio, p, seed, age, guidance) for seed, (p, age) in wanted]
    alone = [made(studio, p, seed, age, guidance) for seed, (p, age) in wanted]
    assert len({studio.layout(take) for take in together}) == 1
    for _ in range(2):  # the second time on memory that was made together
        chunks = studio.make_together(together)
        for chunk, other in zip(chunks, (take.make_next() for take in alone), strict=True):
            assert chunk is not None
            assert other is not None
            assert (chunk.index, chunk.prompt, chunk.start_s) == (other.index, other.prompt, other.start_s)
            assert (chunk.frames.int() - other.frames.int()).abs().max() <= 1
    for one, other in zip(together, alone, strict=True):
        assert one.head is not None
        assert other.head is not None
        mine, theirs = studio.spool.read(one.head), studio.spool.read(other.head)
        assert torch.allclose(mine, theirs, atol=1e-4)
        assert not torch.equal(mine, studio.spool.read(together[0].head)) or one is together[0]  # type: ignore[arg-type]


def test_takes_of_other_ages_or_with_a_cue_to_come_are_made_alone(studio: Studio) -> None:
    young, old, cued = made(studio, "a tiger", 0, 1), made(studio, "a tiger", 0, 5), made(studio, "a tiger", 0, 5)
    assert studio.layout(young) != studio.layout(old)
    assert studio.layout(cued) == studio.layout(old)
    cued.cue("night falls")
    assert studio.layout(cued) is None
    assert studio.layout(made(studio, "a tiger", 0, 5, guidance=2)) != studio.layout(old)


def test_one_that_is_overtaken_is_left_out_and_can_be_made_again(studio: Studio) -> None:
    calm, hasty = made(studio, "a tiger", 1, 4), made(studio, "a boat", 2, 4)
    asked = 0
    before = hasty.still_wanted

    def changes_its_mind(done: bool) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            hasty.cue("night falls")
        return before(done)

    hasty.still_wanted = changes_its_mind  # type: ignore[method-assign]
    first, second = studio.make_together([calm, hasty])
    assert first is not None
    assert second is None
    assert studio.layout(hasty) is None  # alone, where no second cue overtakes it
    again = hasty.make_next()
    assert again is not None
    assert again.prompt == "a boat, night falls"
    assert studio.layout(hasty) is not None
