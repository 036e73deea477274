"""Self-Forcing's recipe, which the default model uses: ODE pairs of the bidirectional teacher, DMD on rollouts."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe without the source adapter, which does not affect the student."""
    default = load_recipe("tiny-world")
    return replace(default, source_pairs=None, source_adapter=None)
