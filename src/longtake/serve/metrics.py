"""Metrics of the running server, for Prometheus."""

from typing import Protocol, runtime_checkable

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CHUNK_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
CUE_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


@runtime_checkable
class Counts(Protocol):
    """Counts that a worker reports."""

    def chunk_made(self, num_frames: int, seconds: float) -> None:
        """Count a chunk, its frames and the seconds it took."""
        ...

    def cue_shown(self, seconds: float) -> None:
        """Count the seconds from a cue's arrival to the chunk that applies it."""
        ...

    def frames_dropped(self, num: int) -> None:
        """Count frames that live sources dropped."""
        ...

    def takes_counted(self, worker: str, open_now: int, viewers: int, waiting: int) -> None:
        """Set the current number of open live takes, viewers and waiting takes of a worker."""
        ...


class Metrics:
    """The collectors of one server, in a registry of their own; implements `Counts`."""

    def __init__(self) -> None:
        self.registry = here = CollectorRegistry()
        self._takes_open = Gauge("longtake_takes_open", "Live takes that have not ended", ["worker"], registry=here)
        self._viewers = Gauge("longtake_viewers", "Connections that watch a take", ["worker"], registry=here)
        self._queue = Gauge("longtake_queue_length", "Live takes that wait for it", ["worker"], registry=here)
        self._dropped = Counter("longtake_frames_dropped", "Frames of live sources that came too fast", registry=here)
        self._jobs = Gauge("longtake_jobs", "Videos by state", ["state"], registry=here)
        self._chunks = Counter("longtake_chunks_made", "Chunks", registry=here)
        self._frames = Counter("longtake_frames_made", "Frames", registry=here)
        self._chunk_s = Histogram(
            "longtake_chunk_seconds", "Time to make a chunk, without H.264", buckets=CHUNK_S, registry=here
        )
        self._cue_s = Histogram(
            "longtake_cue_seconds", "From a cue's arrival to its first chunk", buckets=CUE_S, registry=here
        )
        self._requests = Counter(
            "longtake_http_requests", "Requests by route and status", ["method", "route", "status"], registry=here
        )

    def chunk_made(self, num_frames: int, seconds: float) -> None:
        self._chunks.inc()
        self._frames.inc(num_frames)
        self._chunk_s.observe(seconds)

    def cue_shown(self, seconds: float) -> None:
        self._cue_s.observe(seconds)

    def frames_dropped(self, num: int) -> None:
        self._dropped.inc(num)

    def takes_counted(self, worker: str, open_now: int, viewers: int, waiting: int) -> None:
        self._takes_open.labels(worker).set(open_now)
        self._viewers.labels(worker).set(viewers)
        self._queue.labels(worker).set(waiting)

    def jobs_counted(self, state: str, num: int) -> None:
        """Set the current number of videos in a state."""
        self._jobs.labels(state).set(num)

    def answered(self, method: str, route: str, status: int) -> None:
        """Count a response. `route` is the route's template, so that the labels stay few."""
        self._requests.labels(method, route, str(status)).inc()

    def page(self) -> Response:
        """Return all metrics in the text format of Prometheus."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
