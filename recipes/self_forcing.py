"""Self-Forcing's recipe, and the default: ODE pairs of the bidirectional teacher, DMD on the student's own rollouts."""

from pathlib import Path

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe."""
    return load_recipe(str(Path(__file__).with_name("tiny_world.py")))
