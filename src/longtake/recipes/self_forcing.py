"""Self-Forcing's recipe, the default's way to a student: ODE pairs of the bidirectional teacher, DMD on rollouts."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe up to its student: without the painter, which says nothing about how it was distilled."""
    default = load_recipe("tiny-world")
    return replace(default, painter_pairs=None, painter=None)
