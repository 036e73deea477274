"""Presets refuse what does not fit together, and sizes that a model has not learned."""

from dataclasses import replace

import pytest

from longtake.core.configs import CoarseCodecConfig
from longtake.core.errors import ConfigError, InputError
from longtake.core.shapes import PictureSize
from tests.tiny import PRESET

CODEC = CoarseCodecConfig(latent_channels=4, grid=(2, 4))
KNOWN = replace(PRESET, codec=CODEC, dit=replace(PRESET.dit, grid=(1, 2)), size=PictureSize(height=32, width=64))


def test_a_model_that_knows_its_places_makes_pictures_of_its_size_only() -> None:
    assert KNOWN.latent_grid(KNOWN.size) == (2, 4)
    with pytest.raises(InputError, match="test makes pictures of 64x32 only, got 128x64; --scale writes them larger"):
        KNOWN.latent_grid(PictureSize(height=64, width=128))
    assert PRESET.latent_grid(PictureSize(height=64, width=128)) == (8, 16)


def test_grids_that_are_not_those_of_the_size_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"the network has learned a grid of \(2, 2\), pictures of 64x32 have \(1, 2\)"
    ):
        replace(KNOWN, dit=replace(KNOWN.dit, grid=(2, 2)))
    with pytest.raises(ConfigError, match=r"the codec has learned a grid of \(2, 5\), pictures of 64x32 have \(2, 4\)"):
        replace(KNOWN, codec=replace(CODEC, grid=(2, 5)))
