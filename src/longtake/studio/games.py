"""A game as the source of a take: its time is the take's time, its keys are those that were held meanwhile."""

import threading
import time

import torch

from longtake.core.shapes import Pictures
from longtake.worlds.game import Game, Key


class GameSource:
    """Pictures of a game in the plain look, drawn when the model wants them. It never ends by itself."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._lock = threading.Lock()
        self._held: frozenset[Key] = frozenset()
        self._changes: list[tuple[float, frozenset[Key]]] = []  # since the last pictures
        self._since = time.monotonic()
        self._closed = False

    def hold(self, keys: frozenset[Key]) -> None:
        """These keys are down from now on."""
        with self._lock:
            self._changes.append((time.monotonic(), keys))
            del self._changes[:-100]

    def close(self) -> None:
        """The game is over."""
        self._closed = True

    def ready(self, num: int) -> bool:
        """See `Source`."""
        del num
        return True

    def take(self, num: int) -> Pictures | None:
        """The next pictures; what was pressed since the last ones is spread over them as it was over time."""
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
                    break  # even the shortest press moves something for a frame
            pictures.append(self._game.picture())
            self._game = self._game.step(self._held)
        if changes:
            self._held = changes[-1][1]
        return torch.stack(pictures)
