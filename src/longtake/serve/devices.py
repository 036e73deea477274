"""Several devices behind one seam: every session lives on one of them, the least busy when it was begun."""

from collections.abc import Iterator, Sequence

from longtake.core.shapes import PictureSize
from longtake.serve.errors import NotFoundError
from longtake.serve.host import Session
from longtake.serve.local import LocalHost
from longtake.serve.messages import Open
from longtake.serve.sessions import LiveSession


class Devices:
    """See `host.SessionHost`. Each device has a host, and so a thread, slots and a queue of its own."""

    def __init__(self, hosts: Sequence[LocalHost]) -> None:
        """Args: hosts: one a device, all of the same model; the first one knows the sessions of earlier processes."""
        self.hosts = hosts

    @property
    def model(self) -> str:
        return self.hosts[0].model

    @property
    def fps(self) -> float:
        return self.hosts[0].fps

    @property
    def size(self) -> PictureSize:
        return self.hosts[0].size

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> LiveSession:
        host = min(self.hosts, key=lambda host: host.load)
        return host.open(opening, num_chunks=num_chunks, live=live, owner=owner)

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> LiveSession:
        return self._host_of(session.id).fork(session, after, opening, num_chunks=num_chunks)

    def session(self, session_id: str) -> LiveSession:
        return self._host_of(session_id).session(session_id)

    def sessions(self) -> Iterator[LiveSession]:
        found = [session for host in self.hosts for session in host.sessions()]
        yield from sorted(found, key=lambda s: -s.created_at)

    def forget(self, session: Session) -> None:
        self._host_of(session.id).forget(session)

    @property
    def is_alive(self) -> bool:
        return all(host.is_alive for host in self.hosts)

    def close(self) -> None:
        """Make nothing more. What was made stays on disk."""
        for host in self.hosts:
            host.close()

    def _host_of(self, session_id: str) -> LocalHost:
        found = next((host for host in self.hosts if host.has(session_id)), None)
        if found is None:
            raise NotFoundError("there is no such take; it may have been deleted")
        return found
