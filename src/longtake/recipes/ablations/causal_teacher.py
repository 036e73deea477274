"""A causal teacher in distribution matching: it estimates the score of the data given the student's own past."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with the autoregressive teacher of `causal_forcing`."""
    default = load_recipe("self-forcing")
    assert default.dmd is not None
    forced = load_recipe("causal-forcing").ar_teacher
    return replace(default, ar_teacher=forced, dmd=replace(default.dmd, score="ar_teacher"))
