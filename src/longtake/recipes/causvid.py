"""CausVid's recipe on the default model's world: ODE pairs of the bidirectional teacher, DMD on noised real clips."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with noised real clips in place of rollouts in DMD."""
    default = load_recipe("self-forcing")
    assert default.dmd is not None
    return replace(default, dmd=replace(default.dmd, inputs="data", rollout_frames=default.dmd.latent_frames))
