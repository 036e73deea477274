"""One denoising step instead of four."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with a student of one denoising step."""
    default = load_recipe("self-forcing")
    student = replace(default.preset.student, num_steps=1)
    return replace(default, preset=replace(default.preset, student=student))
