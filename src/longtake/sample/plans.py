"""Plans of chunks: plain values without torch, used by the studio's state machine."""

from dataclasses import dataclass, field
from typing import Any

from longtake.core.cue import Settings, Transition

Wording = tuple[tuple[str, float], ...]  # prompts and their weights, which sum to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InitFrames:
    """Given pictures that take the place of generated ones: an image to animate, or the end of a clip to extend."""

    chunks: int  # chunks that they fill in memory
    frames: int  # frames of them that are shown; 1: an image, which is repeated to fill a chunk in memory
    pictures: Any = field(default=None, repr=False, compare=False)  # uint8 [frames, height, width, 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """Plan of one chunk, which together with the memory before it determines the chunk's bits.

    The transition is the change of memory at a change of wording: *recache* recomputes the window's keys and values
    from their latents under the new wording (motion is kept, meaning changes); *flush* keeps the sink and the last
    latent frame; *cut* keeps nothing, and resets the codec's state too.
    """

    idx: int
    wording: Wording
    settings: Settings = field(default_factory=Settings)
    transition: Transition | None = None  # change of memory before this chunk; None: no change
    given: InitFrames | None = None  # pictures that replace this chunk and all memory before it
    strength: float | None = None  # sigma to which the source is noised; None: there is no source
    rebuilt: bool = False  # whether the memory before this chunk is rebuilt from the latents in its window alone
    threads: int | None = None  # CPU threads, on which results depend by rounding; None: as many as torch has
