"""No initialisation: distribution matching begins with the teacher's own weights."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe without ODE initialisation."""
    default = load_recipe("self-forcing")
    assert default.dmd is not None
    return replace(default, ode_pairs=None, ode_init=None, dmd=replace(default.dmd, start="teacher"))
