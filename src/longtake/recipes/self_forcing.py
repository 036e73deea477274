"""Self-Forcing's recipe, which the default model uses: ODE pairs of the bidirectional teacher, DMD on rollouts."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe without the painter, which does not affect the student."""
    default = load_recipe("tiny-world")
    return replace(default, painter_pairs=None, painter=None)
