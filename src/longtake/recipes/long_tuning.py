"""Streaming long tuning (LongLive): more DMD of the distilled student, on long rollouts with changing prompts."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe, followed by half as many steps of DMD on rollouts of up to eleven seconds."""
    default = load_recipe("self-forcing")
    dmd = default.dmd
    assert dmd is not None
    loop = replace(dmd.loop, steps=dmd.loop.steps // 2, optim=replace(dmd.loop.optim, warmup=5))
    return replace(default, tuning=replace(dmd, loop=loop, start="dmd", rollout_frames=45, recache=True))
