"""The sessions of a server by id."""

from collections.abc import Sequence
from threading import Lock

from longtake.serve.errors import NotFoundError
from longtake.serve.session import Session


class Register:
    """Sessions by id and by watch id. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        with self._lock:
            self._known |= {session.id: session, session.watch_id: session}

    def remove(self, session_id: str) -> None:
        with self._lock:
            session = self._known.get(session_id)
            if session is not None:
                del self._known[session.id], self._known[session.watch_id]

    def get(self, session_id: str) -> Session | None:
        return self._known.get(session_id)

    def named(self, session_id: str) -> Session:
        """Return the session with this id or watch id.

        Raises:
            NotFoundError: there is no such session.
        """
        found = self.get(session_id)
        if found is None:
            raise NotFoundError("there is no such take; it may have been deleted")
        return found

    def all(self) -> Sequence[Session]:
        """All sessions, oldest first."""
        with self._lock:
            found = [session for name, session in self._known.items() if name == session.id]
        return sorted(found, key=lambda s: s.created_at)
