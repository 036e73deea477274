"""Who watches a session: what each of them has on the screen, and how far ahead of them chunks may be made."""

import secrets
import time
from dataclasses import dataclass, field

from longtake.serve.messages import ChunkEvent
from longtake.serve.tree import ChunkTree


@dataclass(frozen=True)
class Viewer:
    """A connection that watches. A value, so that another process knows it again."""

    over_http: bool = False  # a long answer instead of a socket: what it has seen is told by requests without a name
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Viewers:
    """Those of a session, which holds its lock while it calls."""

    def __init__(self, tree: ChunkTree, *, lead: int, fps: float) -> None:
        """Args:
        tree: the session's chunks.
        lead: chunks that may be made ahead of the last one that a viewer shows.
        fps: of the take.
        """
        self._tree = tree
        self._lead = lead
        self._fps = fps
        self._shown: dict[Viewer, int | None] = {}
        self._slow: set[Viewer] = set()  # to whom chunks come more slowly than they play, or who are new

    def __len__(self) -> int:
        return len(self._shown)

    def come(self, viewer: Viewer, tip: int | None) -> None:
        """One who sees what there is, up to a chunk, before the next."""
        if viewer not in self._shown:
            self._shown[viewer] = tip
            self._slow.add(viewer)  # until a chunk has come in time

    def go(self, viewer: Viewer) -> None:
        self._shown.pop(viewer, None)
        self._slow.discard(viewer)

    def turn_to(self, tip: int | None) -> None:
        """All see a branch that begins after a chunk."""
        self._shown = dict.fromkeys(self._shown, tip)

    def show(self, viewer: Viewer | None, event: ChunkEvent) -> None:
        """One has a whole chunk and shows it. `None` stands for all who watch over plain HTTP.

        One who was late by all of the lead has a slow link; one who has a chunk as it falls due has none any more.
        """
        chunk_s = event.num_frames / self._fps
        waited_s = time.time() - event.made_at
        for one in self._shown:
            if one == viewer or (viewer is None and one.over_http):
                self._shown[one] = event.chunk
                slow = waited_s > chunk_s * (1 if one in self._slow else self._lead + 2)
                (self._slow.add if slow else self._slow.discard)(one)

    def far_behind(self, tip: int | None) -> bool:
        """Are as many chunks up to `tip` waiting to be seen as may?

        One, where all links are slow: what waits in them cannot follow a cue any more.
        """
        all_slow = self._slow and self._slow >= self._shown.keys()
        return self._num_ahead(tip) >= (1 if all_slow else self._lead)

    def _num_ahead(self, tip: int | None) -> int:
        """Chunks after the last one that a viewer has on the screen; `lead` of them when none looks at this branch."""
        shown, at, ahead = set(self._shown.values()), tip, 0
        while at not in shown and at is not None and ahead < self._lead:
            at, ahead = self._tree[at].parent, ahead + 1
        return ahead if at in shown else self._lead
