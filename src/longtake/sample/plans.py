"""What a chunk can be asked for. Plain values, no torch: the studio's bookkeeping is made of them."""

from dataclasses import dataclass, field
from typing import Any, Literal

Transition = Literal["recache", "flush", "cut"]
Wording = tuple[tuple[str, float], ...]  # prompts and their weights, which sum to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Pictures that are not made but given: an image to animate, the end of a clip to extend."""

    chunks: int  # that they fill in memory
    frames: int  # that are shown
    pictures: Any = field(default=None, repr=False, compare=False)  # uint8 [frames, height, width, 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """One chunk. With the memory before it, this decides the chunk's bits.

    Transitions say what happens to memory when the wording changes: *recache* makes the window's keys and values
    anew, of the latents there are, under the new wording (motion stays, meaning changes); *flush* keeps the sink
    and the last latent frame; *cut* forgets all of it, codec included.
    """

    idx: int
    wording: Wording
    seed: int
    steps: int | None = None  # None: the model's own
    guidance: float = 1.0  # w of `guide`; 1: the student's own word, other values take twice the time
    transition: Transition | None = None  # None: memory stays as it is
    given: Given | None = None  # pictures that take the place of this chunk and of all that is remembered
    strength: float | None = None  # sigma at which a source enters; None: nothing is followed
