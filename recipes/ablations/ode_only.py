"""ODE initialisation alone: the default recipe without distribution matching."""

from dataclasses import replace
from pathlib import Path

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe up to the student's start."""
    default = load_recipe(str(Path(__file__).parents[1] / "self_forcing.py"))
    return replace(default, dmd=None)
