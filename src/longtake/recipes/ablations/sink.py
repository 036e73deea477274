"""An attention sink: the first chunk stays in the window, beside the previous one."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with a sink of one chunk in the same window."""
    default = load_recipe("self-forcing")
    stream = replace(default.preset.stream, sink=3)
    return replace(default, preset=replace(default.preset, stream=stream))
