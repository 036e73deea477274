"""What is counted while the server runs, for Prometheus."""

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CHUNK_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
CUE_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


class Metrics:
    """The collectors of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = here = CollectorRegistry()
        self.takes_open = Gauge("longtake_takes_open", "Live takes that have not ended", ["device"], registry=here)
        self.viewers = Gauge("longtake_viewers", "Connections that watch a take", ["device"], registry=here)
        self.queue = Gauge("longtake_queue_length", "Sessions that wait for it", ["device"], registry=here)
        self.dropped = Counter("longtake_frames_dropped", "Frames of live sources that came too fast", registry=here)
        self.jobs = Gauge("longtake_jobs", "Videos by state", ["state"], registry=here)
        self._chunks = Counter("longtake_chunks_made", "Chunks", registry=here)
        self._frames = Counter("longtake_frames_made", "Frames", registry=here)
        self._chunk_s = Histogram(
            "longtake_chunk_seconds", "Time to make a chunk, encoded", buckets=CHUNK_S, registry=here
        )
        self._cue_s = Histogram(
            "longtake_cue_seconds", "From a cue's arrival to its first chunk", buckets=CUE_S, registry=here
        )
        self._requests = Counter(
            "longtake_http_requests", "Requests by route and status", ["method", "route", "status"], registry=here
        )

    def chunk_made(self, num_frames: int, seconds: float) -> None:
        """A chunk was made in so many seconds."""
        self._chunks.inc()
        self._frames.inc(num_frames)
        self._chunk_s.observe(seconds)

    def cue_shown(self, seconds: float) -> None:
        """A cue shows, so many seconds after it came."""
        self._cue_s.observe(seconds)

    def answered(self, method: str, route: str, status: int) -> None:
        """A request was answered. `route` is the template, so that the names stay few."""
        self._requests.labels(method, route, str(status)).inc()

    def page(self) -> Response:
        """All numbers, as Prometheus reads them."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
