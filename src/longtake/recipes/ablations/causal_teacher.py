"""A causal teacher in distribution matching: it says where the data lie, given the student's own past."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe with the autoregressive teacher of `causal_forcing`."""
    default = load_recipe("self-forcing")
    assert default.dmd is not None
    forced = load_recipe("causal-forcing").ar_teacher
    return replace(default, ar_teacher=forced, dmd=replace(default.dmd, score="ar_teacher"))
