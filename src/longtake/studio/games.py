"""Game as the source of a take: it advances with the take's frames, by the keys held in real time."""

import threading
import time

import torch

from longtake.core.shapes import Pictures
from longtake.worlds.game import Game, Key


class GameSource:
    """Source that renders a game in the plain look on demand; it ends only by `close`."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._lock = threading.Lock()
        self._held: frozenset[Key] = frozenset()
        self._changes: list[tuple[float, frozenset[Key]]] = []  # changes of keys since the last pictures
        self._since = time.monotonic()
        self._closed = False

    def hold(self, keys: frozenset[Key]) -> None:
        """Set the keys that are held from now on."""
        with self._lock:
            self._changes.append((time.monotonic(), keys))
            del self._changes[:-100]

    def close(self) -> None:
        """End the game."""
        self._closed = True

    def ready(self, num: int) -> bool:
        """Always true, since pictures are rendered on demand; see `Source`."""
        del num
        return True

    def take(self, num: int) -> Pictures | None:
        """Next `num` pictures; key changes since the last call are distributed over them in proportion to time."""
        if self._closed:
            return None
        now = time.monotonic()
        with self._lock:
            changes, since = self._changes, self._since
            self._changes, self._since = [], now
        pictures = []
        for i in range(num):
            until = since + (now - since) * (i + 1) / num
            while changes and changes[0][0] <= until:
                self._held = changes.pop(0)[1]
                if self._held:
                    break  # so that even the shortest press has an effect for one frame
            pictures.append(self._game.picture())
            self._game = self._game.step(self._held)
        if changes:
            self._held = changes[-1][1]
        return torch.stack(pictures)
