"""Half the memory: a window of six latent frames instead of nine."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe with a window of the current chunk and one before it."""
    default = load_recipe("self-forcing")
    stream = replace(default.preset.stream, window=6)
    return replace(default, preset=replace(default.preset, stream=stream))
