"""The viewers of a session: the chunk that each one shows, and the back pressure on generation that follows."""

import secrets
import time
from dataclasses import dataclass, field

from longtake.serve.messages import ChunkEvent
from longtake.serve.tree import ChunkTree

SILENT_S = 20.0


@dataclass(frozen=True)
class Viewer:
    """A connection that watches a session. Compared by value, so that it is equal in another process."""

    over_http: bool = False  # a streaming response, no WebSocket; its `seen` commands name no viewer
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Viewers:
    """The viewers of one session. Calls require the session's lock."""

    def __init__(self, tree: ChunkTree, *, lead: int, fps: float) -> None:
        """Start without viewers.

        Args:
            tree: the session's chunks.
            lead: number of chunks that may be generated ahead of the last one that a viewer shows.
            fps: frame rate of the take.
        """
        self._tree = tree
        self._lead = lead
        self._fps = fps
        self._shown: dict[Viewer, int | None] = {}
        self._slow: set[Viewer] = set()  # viewers whose link is slower than playback, and new viewers
        self._heard_s = 0.0  # `time.monotonic()` when a viewer last came or showed a chunk

    def __len__(self) -> int:
        return len(self._shown)

    def come(self, viewer: Viewer, tip: int | None) -> None:
        """Add a viewer, which counts as showing the chunk `tip`."""
        if viewer not in self._shown:
            self._shown[viewer] = tip
            self._slow.add(viewer)  # until a chunk arrives in time
            self._heard_s = time.monotonic()

    def go(self, viewer: Viewer) -> None:
        self._shown.pop(viewer, None)
        self._slow.discard(viewer)

    def turn_to(self, tip: int | None) -> None:
        """Move all viewers to a branch that begins after the chunk `tip`."""
        self._shown = dict.fromkeys(self._shown, tip)

    def show(self, viewer: Viewer | None, event: ChunkEvent, tip: int | None) -> None:
        """Record that a viewer has a complete chunk and shows it; None stands for all viewers over plain HTTP.

        A chunk that is not on the path to `tip` was sent before the head moved: it does not count, or generation would
        wait for a viewer who waits for the first chunk after the move.

        A viewer becomes slow when it shows a chunk more than `lead` + 2 chunk durations after it was generated, and
        stops being slow when it shows one within one chunk duration.
        """
        chunk_s = event.num_frames / self._fps
        waited_s = time.time() - event.made_at
        self._heard_s = time.monotonic()
        for one in self._shown if self._tree.leads_to(event.chunk, tip) else ():
            if one == viewer or (viewer is None and one.over_http):
                self._shown[one] = event.chunk
                slow = waited_s > chunk_s * (1 if one in self._slow else self._lead + 2)
                (self._slow.add if slow else self._slow.discard)(one)

    def far_behind(self, tip: int | None) -> bool:
        """Whether the number of unseen chunks up to `tip` has reached its limit, at most `lead`.

        If all links are slow the limit is 1, since chunks in flight can no longer follow a cue.
        """
        all_slow = self._slow and self._slow >= self._shown.keys()
        return self._num_ahead(tip) >= (1 if all_slow else self._lead)

    def silent(self, tip: int | None) -> bool:
        """Whether chunks up to `tip` have waited for viewers for `SILENT_S`, and none has shown one."""
        return self.far_behind(tip) and time.monotonic() - self._heard_s > SILENT_S

    def _num_ahead(self, tip: int | None) -> int:
        """Number of chunks after the last one that a viewer shows, at most `lead`; `lead` if none is on the branch."""
        shown, at, ahead = set(self._shown.values()), tip, 0
        while at not in shown and at is not None and ahead < self._lead:
            at, ahead = self._tree[at].parent, ahead + 1
        return ahead if at in shown else self._lead
