"""Half the memory: six latent frames in sight instead of nine."""

from dataclasses import replace

from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The default recipe for a student that sees one chunk besides its own."""
    default = load_recipe("self-forcing")
    stream = replace(default.preset.stream, window=6)
    return replace(default, preset=replace(default.preset, stream=stream))
