"""CausVid's recipe on the default model's world: ODE pairs of the bidirectional teacher, DMD on noised real clips."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe but for what the student makes its clips from while it is distilled."""
    default = load_recipe("self-forcing")
    assert default.dmd is not None
    return replace(default, dmd=replace(default.dmd, inputs="data", rollout_frames=default.dmd.latent_frames))
