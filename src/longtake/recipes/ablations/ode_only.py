"""ODE initialisation alone: the default recipe without distribution matching."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe up to the student's start."""
    default = load_recipe("self-forcing")
    return replace(default, dmd=None)
