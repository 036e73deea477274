"""Interface between the server and a worker, which is in the server's process or an actor on some machine."""

from typing import Protocol, runtime_checkable

from longtake.sample.words import UnknownWord
from longtake.serve.handover import Handover, WorkerInfo, WorkerLoad
from longtake.serve.messages import Command, Event
from longtake.serve.viewers import Viewer


@runtime_checkable
class WorkerClient(Protocol):
    """Methods of a worker. All but `close` raise LostError if the worker is lost, or has no such session."""

    name: str
    about: WorkerInfo

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        """The words of a prompt that are not in the vocabulary."""
        ...

    def open(self, handover: Handover) -> None:
        """Begin a session.

        Raises:
            LongtakeError: the request cannot be fulfilled.
            BusyError: all slots and all places in the queue are taken.
        """
        ...

    def adopt(self, handover: Handover) -> None:
        """Go on with a session of another worker, whether there is room or not. Raises as `open`."""
        ...

    def do(self, session_id: str, command: Command, viewer: Viewer | None) -> Event:
        """Execute a command; see `Session.do`."""
        ...

    def push(self, session_id: str, picture: bytes) -> None:
        """Add a picture to a live source; see `Session.push`."""
        ...

    def watched(self, session_id: str, viewer: Viewer) -> None:
        """Register a viewer; a second time changes nothing."""
        ...

    def left(self, session_id: str, viewer: Viewer) -> None:
        """Unregister a viewer."""
        ...

    def has_memory(self, session_id: str) -> bool:
        """Whether another session can continue from the chunks of this one at once."""
        ...

    def surrender(self, session_id: str) -> int:
        """Stop a session, which goes on elsewhere; returns the number of log entries that were sent."""
        ...

    def forget(self, session_id: str) -> None:
        """Stop a session that is deleted; nothing happens if there is none."""
        ...

    def load(self) -> WorkerLoad:
        """What the worker has to do."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it can make chunks."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...
