"""The tree of chunks. A node knows its parent and nothing else knows the tree: a branch is a second child, a
rewind is another head, and what no head leads to is gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from longtake.core.cue import Cue, Settings
from longtake.core.errors import InputError
from longtake.sample.plans import ChunkPlan
from longtake.studio.commands import Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The arithmetic of time: pictures a chunk holds, and how long they last."""

    fps: float
    opening_frames: int  # of a chunk that begins a video
    chunk_frames: int  # of every other

    def place(self, chunk: int, frame: int) -> Position:
        return Position(chunk=chunk, frame=frame, seconds=frame / self.fps)


@dataclass(frozen=True, kw_only=True, slots=True)
class InForce:
    """What is in force after a chunk."""

    prompt: str
    settings: Settings = field(default_factory=Settings)
    fading_from: str | None = None
    fade_done: int = 0
    fade_length: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Node:
    """A chunk that has been made. Compared by identity."""

    plan: ChunkPlan
    in_force: InForce
    parent: "Node | None" = field(repr=False)
    start_frame: int
    num_frames: int
    cues: tuple[tuple[int, Cue], ...] = ()  # that it was the first to show, with their numbers and whole prompts

    @property
    def idx(self) -> int:
        return self.plan.idx

    @property
    def stop_frame(self) -> int:
        return self.start_frame + self.num_frames


def back_from(node: Node | None) -> Iterator[Node]:
    """A node, its parent, and so on to the beginning."""
    while node is not None:
        yield node
        node = node.parent


def path_to(node: Node | None) -> list[Node]:
    """All chunks of a take, the first one first."""
    return list(back_from(node))[::-1]


def node_at(head: Node | None, idx: int) -> Node | None:
    """The chunk `idx` on the way to `head`; None for -1, the beginning.

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
