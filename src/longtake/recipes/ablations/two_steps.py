"""Two denoising steps instead of four."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with a student of two denoising steps."""
    default = load_recipe("self-forcing")
    student = replace(default.preset.student, num_steps=2)
    return replace(default, preset=replace(default.preset, student=student))
