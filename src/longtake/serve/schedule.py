"""The scheduler of a device: who is admitted, who holds a slot, and whose chunks are generated next.

It is independent of torch, threads and clocks: callers pass the sessions and the time. A limited number of live
sessions hold a slot; the others wait in a queue, oldest first, and get the slots of sessions whose viewers show nothing
any more. Of the sessions that are ready, live ones take turns, the one that has waited longest first; jobs fill the
remaining time, and get one chunk after every `LIVE_CHUNKS_PER_JOB_CHUNK` chunks of live sessions even under full load.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from longtake.serve.errors import BusyError

LEAD = 3  # chunks that may be generated ahead of the viewers
LIVE_LEAD = 1  # lead of a session that follows a camera or a game: every chunk ahead adds latency
LIVE_CHUNKS_PER_JOB_CHUNK = 4
SLOT_GRACE_S = 10.0  # a session keeps its slot for this long while a viewer reloads the page
SHORT_GRACE_S = 0.5  # the same while other sessions wait; older sessions come first in the queue
TYPICAL_TURN_S = 60.0  # initial estimate of the time that a live session holds its slot


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """DeviceLimits of one device."""

    takes: int = 2  # live sessions that hold a slot at the same time
    waiting: int = 16  # live sessions that may wait in the queue; more are refused
    batch: int = 4  # sessions whose chunks are generated in one step


class QueuePlace(NamedTuple):
    """QueuePlace of a session: a slot, or a position in the queue."""

    position: int = 0  # 0: it holds a slot; 1, 2, ...: position in the queue
    wait_s: float = 0.0  # estimated seconds until it gets a slot


@runtime_checkable
class Schedulable(Protocol):
    """What the scheduler reads of a session."""

    @property
    def id(self) -> str: ...

    @property
    def live(self) -> bool:
        """Whether it runs for viewers; if not, it is a job, which needs no slot."""
        ...

    @property
    def created_at(self) -> float: ...

    @property
    def last_made_s(self) -> float:
        """Time of its last chunk; 0 before the first."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def wants_slot(self) -> bool:
        """Whether it would use a slot."""
        ...

    @property
    def silent(self) -> bool:
        """Whether its viewers have long shown nothing, so that others may have its slot."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a chunk can be generated now."""
        ...

    @property
    def layout(self) -> Hashable | None:
        """Key of the sessions whose next chunks can be generated in one step with this one's; None: none can."""
        ...


S = TypeVar("S", bound=Schedulable)


class Scheduler:
    """State of one device's schedule. Times are seconds of a clock that never goes back."""

    def __init__(self, limits: DeviceLimits) -> None:
        self.limits = limits
        self._wanted_s: dict[str, float] = {}  # session that holds a slot -> when it last wanted it
        self._since_s: dict[str, float] = {}  # session that holds a slot -> when it got it
        self._arrived_s: dict[str, float] = {}  # live session that has held no slot yet -> when it was opened
        self._places: dict[str, QueuePlace] = {}
        self._turn_s = TYPICAL_TURN_S
        self._live_in_a_row = 0

    # Admission.

    def check_room(self, sessions: Sequence[Schedulable], now: float) -> None:
        """Check that one more live session may be opened.

        Raises:
            BusyError: all slots and all positions of the queue are taken.
        """
        if self.room(sessions, now) <= -self.limits.waiting:
            takes, waiting = self.limits.takes, self.limits.waiting
            raise BusyError(f"{takes} takes are running and {waiting} are waiting; try again later")

    def arrived(self, session: Schedulable, now: float) -> None:
        """Count a new session as one that waits, until its first viewer has had time to come."""
        if session.live and not session.over:
            self._arrived_s[session.id] = now

    def room(self, sessions: Sequence[Schedulable], now: float) -> int:
        """Number of live sessions that would get a slot at once; a negative number -n: n sessions wait."""
        return self.limits.takes - self.num_running(sessions) - self.num_waiting(sessions, now)

    def load(self, sessions: Sequence[Schedulable], now: float) -> int:
        """Number of sessions that run or wait, jobs included."""
        jobs = sum(not s.live and not s.over for s in sessions)
        return self.num_running(sessions) + self.num_waiting(sessions, now) + jobs

    def num_running(self, sessions: Sequence[Schedulable]) -> int:
        """Number of live sessions that hold a slot and have not ended."""
        return sum(s.id in self._wanted_s and not s.over for s in sessions)

    def num_waiting(self, sessions: Sequence[Schedulable], now: float) -> int:
        """Number of live sessions that wait for a slot, or were just opened and will want one."""
        return sum(
            (s.wants_slot and not s.silent) or now - self._arrived_s.get(s.id, now - SLOT_GRACE_S) < SLOT_GRACE_S
            for s in sessions
            if s.live and not s.over and s.id not in self._wanted_s
        )

    # Slots.

    def assign(self, sessions: Sequence[Schedulable], now: float) -> dict[str, QueuePlace | None]:
        """Give free slots to waiting live sessions, oldest first; returns the places that have changed.

        A session loses its slot when it ends, when it has not wanted it for a grace period, or when its viewers are
        silent and others wait.
        """
        wanting = [s for s in sessions if s.live and s.wants_slot and not s.over]
        waiting = [s for s in wanting if s.id not in self._wanted_s and not s.silent]
        self._wanted_s |= {s.id: now for s in wanting if s.id in self._wanted_s and not (waiting and s.silent)}
        grace_s, there = SHORT_GRACE_S if waiting else SLOT_GRACE_S, {s.id for s in sessions if not s.over}
        for lost in [i for i, wanted_s in self._wanted_s.items() if now - wanted_s > grace_s or i not in there]:
            del self._wanted_s[lost]
            self._turn_s += 0.2 * (now - self._since_s.pop(lost) - self._turn_s)
        free = self.limits.takes - len(self._wanted_s)
        for session in waiting[:free]:
            self._wanted_s[session.id] = self._since_s[session.id] = now
            self._arrived_s.pop(session.id, None)
        self._arrived_s = {i: at for i, at in self._arrived_s.items() if i in there and now - at < SLOT_GRACE_S}
        places = dict.fromkeys(self._wanted_s, QueuePlace())
        for position, session in enumerate(waiting[max(0, free) :], 1):
            known = self._places.get(session.id)
            wait_s = round(position * self._turn_s / self.limits.takes, 1)
            places[session.id] = known if known and known.position == position else QueuePlace(position, wait_s)
        before, self._places = self._places, places
        return {i: places.get(i) for i in before.keys() | places.keys() if before.get(i) != places.get(i)}

    # Turns.

    def turn(self, sessions: Sequence[S]) -> list[S]:
        """The session whose chunk is generated next, and others whose chunks can be generated in the same step."""
        first, *rest = self._in_order([s for s in sessions if s.ready]) or [None]
        if first is None:
            return []
        layout = first.layout if rest and self.limits.batch > 1 else None
        alike = [s for s in rest if s is not None and s.layout == layout] if layout is not None else []
        return [first, *alike[: self.limits.batch - 1]]

    def _in_order(self, ready: Sequence[S]) -> list[S]:
        """The session whose turn it is, then others of its kind in the order of their turns."""
        live = sorted((s for s in ready if s.live), key=lambda s: s.last_made_s)
        jobs = sorted((s for s in ready if not s.live), key=lambda s: s.created_at)
        if jobs and (not live or self._live_in_a_row >= LIVE_CHUNKS_PER_JOB_CHUNK):
            self._live_in_a_row = 0
            return jobs
        self._live_in_a_row += bool(live)
        return live
