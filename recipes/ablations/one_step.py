"""One denoising step instead of four."""

from dataclasses import replace
from pathlib import Path

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe for a student of one step."""
    default = load_recipe(str(Path(__file__).parents[1] / "self_forcing.py"))
    student = replace(default.preset.student, num_steps=1)
    return replace(default, preset=replace(default.preset, student=student))
