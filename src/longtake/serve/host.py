"""The sessions of a server and their workers: where a session is made, and where it goes on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from threading import RLock

from longtake.core.errors import InputError, LongtakeError
from longtake.sample.words import UnknownWord
from longtake.serve.errors import INTERNAL_ERROR, LostError, NotFoundError
from longtake.serve.handover import CountNews, Entries, StatusNews, WorkerEvent, WorkerInfo
from longtake.serve.log import EventLog
from longtake.serve.messages import Open, Status
from longtake.serve.metrics import Counts
from longtake.serve.opening import opened_by
from longtake.serve.recorded import EXPORTS, FACTS, LOG, SessionMeta, new_facts, new_folder
from longtake.serve.register import Register
from longtake.serve.session import MAX_LOSSES, Session
from longtake.serve.workers import WorkerClient
from longtake.studio.script import ScriptCue

logger = logging.getLogger("longtake.serve")


@dataclass(frozen=True)
class WorkerState:
    """A worker, as `/readyz` and `longtake fleet status` show it."""

    name: str
    node: str
    device: str
    pid: int
    state: str  # "ready", "draining", "drained" or "lost"
    sessions: int
    free_bytes: int


class SessionHost:
    """The sessions in a folder, and the workers that make them. Methods may be called from any thread."""

    def __init__(self, folder: Path, metrics: Counts) -> None:
        """Create a host without workers.

        Args:
            folder: folder of the sessions' folders.
            metrics: receives the workers' counts.
        """
        self.folder = folder
        self._metrics = metrics
        self._sessions = Register()
        self._placing = RLock()  # held while sessions change their worker, and the list of workers changes
        self._workers: dict[str, WorkerClient] = {}
        self._states: dict[str, str] = {}
        self._infos: dict[str, WorkerInfo] = {}

    # Workers.

    def add(self, worker: WorkerClient) -> None:
        """Add a worker, or one that takes the place of a lost one; sessions without a worker go on there."""
        with self._placing:
            self._workers[worker.name], self._states[worker.name] = worker, "ready"
            self._infos[worker.name] = self.about = worker.about
            for session in self._sessions.all():
                if session.is_open and session.worker is None:
                    self._place(session)

    def lost(self, worker: WorkerClient) -> bool:
        """Go on elsewhere with the sessions of a worker that was lost; returns whether another is to take its place."""
        with self._placing:
            if self._workers.get(worker.name) is not worker:
                return False  # it was drained
            del self._workers[worker.name]
            self._states[worker.name] = "lost"
            self._metrics.takes_counted(worker.name, 0, 0, 0)
            for session in self._on(worker):
                session.losses += 1
                session.assign(None)
                self._place(session)
            return True

    def drain(self, name: str) -> Sequence[str]:
        """Move the sessions of a worker, or of all workers of a node, to others; returns the names of the workers.

        Raises:
            NotFoundError: there is no such worker or node.
            InputError: no other worker would be left.
        """
        with self._placing:
            leaving = [w for w in self._workers.values() if name in (w.name, w.about.node)]
            if not leaving:
                raise NotFoundError(f'there is no worker or node "{name}"; "longtake fleet status" lists them')
            left = [w for w in self._ready() if w not in leaving]
            if not left:
                raise InputError(f"{name} has the only workers that are left; add others first")
            for worker in leaving:
                self._states[worker.name] = "draining"
            for worker in leaving:
                for session in self._on(worker):
                    self.move(session)
                del self._workers[worker.name]
                self._states[worker.name] = "drained"
                self._metrics.takes_counted(worker.name, 0, 0, 0)
        for worker in leaving:
            worker.close()
        return [worker.name for worker in leaving]

    def close(self) -> None:
        """End the workers. Recorded sessions stay on disk."""
        with self._placing:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.close()

    def move(self, session: Session, target: WorkerClient | None = None) -> None:
        """Move a session to another worker; None: to the least busy one."""
        with self._placing:
            worker = session.worker
            if worker is None or session.ended is not None:
                return
            try:
                session.wait_for_entries(worker.surrender(session.id), worker)
            except LostError:
                if not worker.is_alive:
                    return  # `lost` moves it
            session.assign(None)
            self._place(session, target)

    @property
    def workers(self) -> Sequence[WorkerClient]:
        """The workers that are not lost, in order of their names."""
        return [worker for _, worker in sorted(self._workers.items())]

    def states(self) -> list[WorkerState]:
        """All workers, in order of their names."""
        found = []
        for name, about in sorted(self._infos.items()):
            worker = self._workers.get(name)
            try:
                load = None if worker is None else worker.load()
            except LostError:
                load = None
            state = self._states[name]
            if worker is not None and (load is None or not worker.is_alive):
                state = "lost"
            sessions, free_bytes = (0, 0) if load is None else (load.sessions, load.free_bytes)
            found.append(WorkerState(name, about.node, about.device, about.pid, state, sessions, free_bytes))
        return found

    def balance(self) -> None:
        """Move waiting sessions to workers with a free slot, the oldest session first."""
        for session in [session for session in self._sessions.all() if session.waits]:
            if session.worker is not None and session.worker.load().room >= 0:
                continue  # all who wait there begin in a moment
            free = next((w for w in self._ready() if w is not session.worker and w.load().room > 0), None)
            if free is not None:
                self.move(session, free)

    def receive(self, worker: WorkerClient, event: WorkerEvent) -> None:
        """Dispatch an event of a worker; those of sessions that it does not make any more are dropped.

        Raises:
            MediaError: log entries cannot be stored; the session has ended.
        """
        if isinstance(event, CountNews):
            getattr(self._metrics, event.method)(*event.args)
            return
        session = self._sessions.get(event.session_id)
        if session is None or session.worker is not worker:
            return
        match event:
            case Entries():
                session.receive(event)
            case StatusNews():
                session.tell(event.status)

    # Sessions.

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self._least_busy().unknown_words(prompt)

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> Session:
        """Open a session.

        Args:
            opening: prompt, settings, and the picture, clip or source to begin with.
            num_chunks: number of chunks after which the session ends by itself; None: no limit.
            live: whether it runs for viewers only, and has priority over jobs; False: a job.
            owner: id of the key that opens it.

        Raises:
            LongtakeError: the request cannot be fulfilled.
            BusyError: all slots and all places in the queue are taken.
        """
        facts = new_facts(opening, num_chunks=num_chunks, live=live, owner=owner)
        return self._begun(facts, self._least_busy(), None, None)

    def fork(self, session: Session, after: int, opening: Open, *, num_chunks: int) -> Session:
        """Open a job that shares another session's chunks up to `after` and continues under another opening."""
        facts = new_facts(opening, num_chunks=num_chunks, live=False, owner=None)
        index = session.path(after)[-1].index
        cue = ScriptCue(chunk=index + 1, prompt=opening.prompt, seed=opening.seed)
        worker = self._with_memory(session)
        return self._begun(facts, worker, lambda new: new.share(session, after, cue), (session.id, after))

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> Session:
        """Open a live session that shares another one's chunks up to `after` and continues as that one did.

        If no worker holds the other take any more, the shared chunks are made again first.

        Raises:
            InputError: there is no such chunk; the other session followed a source or was made with other weights.
            ConflictError: the chunk is being encoded.
            BusyError: all slots and all places in the queue are taken.
        """
        facts = new_facts(session.opening, num_chunks=None, live=True, owner=owner)
        worker = self._with_memory(session)
        return self._begun(facts, worker, lambda new: new.share(session, after, None), (session.id, after))

    def session(self, session_id: str) -> Session:
        """The session with this id or watch id.

        Raises:
            NotFoundError: there is no such session.
        """
        return self._sessions.named(session_id)

    def sessions(self) -> Iterator[Session]:
        """All sessions, newest first."""
        return reversed(self._sessions.all())

    def forget(self, session: Session) -> None:
        """End a session and delete its files."""
        with self._placing:
            worker = session.worker
            session.end("closed", None)
            self._sessions.remove(session.id)
            if worker is not None:
                try:
                    worker.forget(session.id)
                except LostError:
                    logger.info("the worker of a deleted take was lost")
        rmtree(session.folder, ignore_errors=True)

    def restore(self) -> None:
        """Load the sessions of earlier processes. Live ones that had not ended go on when somebody comes back."""
        for path in sorted(self.folder.glob(f"*/{FACTS}")):
            rmtree(path.parent / EXPORTS, ignore_errors=True)
            try:
                facts = SessionMeta.model_validate_json(path.read_bytes())
                session = Session(path.parent, facts, EventLog(path.parent / LOG))
            except (OSError, ValueError, LookupError) as error:
                logger.warning("the take in %s cannot be read any more: %s", path.parent.name, error)
                continue
            if session.ended is None:
                if facts.live and (session.opened.source is None or session.tip is None):
                    session.dormant = True
                else:
                    session.end("closed", "the server was started again")
            self._register(session)

    # Helpers.

    def _begun(
        self,
        facts: SessionMeta,
        worker: WorkerClient,
        fill: Callable[[Session], None] | None,
        parent: tuple[str, int] | None,
    ) -> Session:
        """Create a session's folder, and open the session on a worker."""
        with new_folder(self.folder, facts) as folder:
            log = EventLog(folder / LOG)
            log.append(opened_by(facts.opening, worker.about))
            session = Session(folder, facts, log)
            if fill is not None:
                fill(session)
        session.assign(worker)
        self._register(session)
        try:
            worker.open(session.handover(parent))
            session.settle()
        except BaseException as error:
            session.end("failed", str(error))
            self._sessions.remove(session.id)
            rmtree(folder, ignore_errors=True)
            raise
        return session

    def _register(self, session: Session) -> None:
        session.wake = lambda: self._wake(session)
        self._sessions.add(session)

    def _wake(self, session: Session) -> None:
        with self._placing:
            if session.dormant and session.ended is None:
                session.assign(None)
                self._place(session)

    def _place(self, session: Session, target: WorkerClient | None = None) -> None:
        """Go on with a session that has no worker; it waits if there is none now. Requires `_placing`."""
        if session.losses >= MAX_LOSSES:
            session.end("lost", f"{session.losses} workers were lost that made this take")
            return
        for worker in [target] if target is not None else self._by_load():
            session.assign(worker)
            try:
                worker.adopt(session.handover(moves=True))
                session.settle()
            except LostError:
                session.assign(None)
                continue
            except Exception as error:  # whatever the error, no worker has the session now
                logger.exception("a take cannot go on")
                session.end("lost", str(error) if isinstance(error, LongtakeError) else INTERNAL_ERROR)
            return
        if target is not None:
            self._place(session)
        else:  # no worker is there: the session waits for one
            session.tell(Status(state="queued", viewers=session.status.viewers))

    def _on(self, worker: WorkerClient) -> list[Session]:
        return [s for s in self._sessions.all() if s.worker is worker and s.ended is None]

    def _ready(self) -> list[WorkerClient]:
        """Workers that may have new sessions."""
        return [w for w in list(self._workers.values()) if self._states[w.name] == "ready" and w.is_alive]

    def _by_load(self) -> list[WorkerClient]:
        """Workers that may have new sessions, the least busy first; of two, the one with more free memory."""
        loads = []
        for worker in self._ready():
            try:
                loads.append((worker.load(), worker))
            except LostError:
                logger.info("worker %s is lost", worker.name)
        return [worker for _, worker in sorted(loads, key=lambda pair: (pair[0].sessions, -pair[0].free_bytes))]

    def _least_busy(self) -> WorkerClient:
        workers = self._by_load()
        if not workers:
            raise LostError("no worker makes anything now; try again later")
        return workers[0]

    def _with_memory(self, session: Session) -> WorkerClient:
        """The worker that has the memory of a session's takes; the least busy one if none has."""
        worker = session.worker
        return worker if worker is not None and session.has_memory() and worker in self._ready() else self._least_busy()
