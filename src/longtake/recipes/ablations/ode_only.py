"""ODE initialisation alone, without distribution matching."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe up to ODE initialisation."""
    default = load_recipe("self-forcing")
    return replace(default, dmd=None)
