"""Streaming long tuning (LongLive): the distilled student once more, on long rollouts whose prompts change."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe up to its student, and half as many steps on rollouts of up to eleven seconds."""
    default = load_recipe("self-forcing")
    dmd = default.dmd
    assert dmd is not None
    loop = replace(dmd.loop, steps=dmd.loop.steps // 2, optim=replace(dmd.loop.optim, warmup=5))
    return replace(default, tuning=replace(dmd, loop=loop, start="dmd", rollout_frames=45, recache=True))
