"""Plans of chunks: plain values without torch, which the studio's bookkeeping is made of."""

from dataclasses import dataclass, field
from typing import Any

from longtake.core.cue import Settings, Transition

Wording = tuple[tuple[str, float], ...]  # prompts and their weights, which sum to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InitFrames:
    """Pictures that are given instead of made: an image to animate, the end of a clip to extend."""

    chunks: int  # that they fill in memory
    frames: int  # that are shown; 1: an image, which stands still for a chunk in memory
    pictures: Any = field(default=None, repr=False, compare=False)  # uint8 [frames, height, width, 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """One chunk. With the memory before it, this decides the chunk's bits.

    Transitions say what happens to memory when the wording changes: *recache* computes the window's keys and values
    again from their latents under the new wording (motion stays, meaning changes); *flush* keeps the sink and the last
    latent frame; *cut* keeps nothing, of the codec's state neither.
    """

    idx: int
    wording: Wording
    settings: Settings = field(default_factory=Settings)
    transition: Transition | None = None  # None: memory stays as it is
    given: InitFrames | None = None  # pictures that take the place of this chunk and of all that is remembered
    strength: float | None = None  # sigma at which a source enters; None: no source is followed
