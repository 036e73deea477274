"""Tree of chunks, in which nodes refer to their parents only.

A branch is a second child, a rewind is another head, and chunks that no head leads to are released.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from longtake.core.cue import Cue, Settings
from longtake.core.errors import InputError
from longtake.sample.plans import ChunkPlan
from longtake.studio.commands import Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Conversion from chunks to frames and seconds."""

    fps: float
    opening_frames: int  # frames of a chunk that begins a video
    chunk_frames: int  # frames of every other chunk

    def place(self, chunk: int, frame: int) -> Position:
        return Position(chunk=chunk, frame=frame, seconds=frame / self.fps)


@dataclass(frozen=True, kw_only=True, slots=True)
class InForce:
    """Prompt, fade and settings in force after a chunk."""

    prompt: str
    settings: Settings = field(default_factory=Settings)
    fading_from: "InForce | None" = None  # prompt and scales before the fade; None: no fade is in progress
    fade_done: int = 0  # chunks of the fade so far
    fade_length: int = 0  # chunks of the whole fade


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Node:
    """Chunk in the tree, planned or finished, compared by identity."""

    plan: ChunkPlan
    in_force: InForce
    parent: "Node | None" = field(repr=False)
    start_frame: int
    num_frames: int
    cues: tuple[tuple[int, Cue], ...] = ()  # numbers and cues, with full prompts, that this chunk is the first to show

    @property
    def idx(self) -> int:
        return self.plan.idx

    @property
    def stop_frame(self) -> int:
        return self.start_frame + self.num_frames


def back_from(node: Node | None) -> Iterator[Node]:
    """Yield a node and its ancestors, back to the beginning."""
    while node is not None:
        yield node
        node = node.parent


def path_to(node: Node | None) -> list[Node]:
    """All chunks from the beginning of a take up to `node`, in order."""
    return list(back_from(node))[::-1]


def node_at(head: Node | None, idx: int) -> Node | None:
    """Chunk `idx` on the path to `head`; None for -1, the beginning.

    Raises:
        InputError: there is no such chunk.
    """
    first = 0
    for node in back_from(head):
        if node.idx == idx:
            return node
        first = node.idx
    if idx == -1:
        return None
    made = (
        "no chunk is made yet" if head is None else f"-1 (the beginning) and {first} to {head.idx} can be gone back to"
    )
    raise InputError(f"there is no chunk {idx} to go back to: {made}")
