"""What is given: measures with known values, and a painting that is the studio's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from longtake.evals.fidelity import chunk_frames, first_frame, iou, looks, luma, psnr, restyled, silhouettes
from longtake.sample.model import Model, open_model
from longtake.studio.studio import Studio
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig
from tests.tiny import PRESET, write_model


@pytest.fixture(params=[False, True])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    return open_model(str(write_model(tmp_path / "model", source_adapter=request.param)))


@pytest.fixture
def studio(model: Model) -> Iterator[Studio]:
    with Studio(model) as studio:
        yield studio


def test_a_painting_is_what_the_studio_makes(model: Model, studio: Studio) -> None:
    rng = torch.Generator().manual_seed(0)
    source = torch.randint(256, (chunk_frames(model, 3), 32, 48, 3), dtype=torch.uint8, generator=rng)
    shown = torch.cat([chunk.frames for chunk in studio.restyle(iter([source]), "a tiger walks", seed=3).stream()])
    assert torch.equal(restyled(model, source, "a tiger walks", seed=3), shown)
    assert not torch.equal(restyled(model, source, "a tiger walks", seed=3, strength=0.3), shown)


def test_the_first_frame_is_what_animate_shows(model: Model, studio: Studio) -> None:
    world = WorldConfig(places=("desert_dawn",), subjects=("car",), motions=("drives",), size=PRESET.size)
    scene = sample_scene(world, 0)
    plain, full, truth = looks(scene, 9)
    animated = next(studio.animate(full[:1], "a car drives").stream(chunks=1)).frames[0]
    assert torch.equal(first_frame(model, scene, "a car drives"), animated)
    assert 0 < float(truth.float().mean()) < 0.5
    assert not torch.equal(plain, full)


def test_measures_have_their_values() -> None:
    black, grey = torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.full((4, 8, 8, 3), 51, dtype=torch.uint8)
    assert psnr(black, grey) == pytest.approx(13.979, abs=1e-3)  # a fifth of the range: 20 log10(5)
    assert psnr(grey, grey) == 99
    assert torch.allclose(luma(grey), torch.tensor(51.0))
    moving = black.clone()
    moving[1, 2:4, 2:4] = 255
    seen = silhouettes(moving)
    assert int(seen.sum()) == 4
    assert bool(seen[1, 2:4, 2:4].all())
    assert iou(seen, seen) == 1
    assert iou(seen, seen.roll(1, 1)) == pytest.approx(2 / 6)
