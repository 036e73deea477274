"""Jobs: videos of a given length, each a session that ends by itself, then a file. Jobs survive a restart.

If the session of an earlier video still exists, its chunks are shared instead of regenerated.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

from anyio import CapacityLimiter
from sqlalchemy.exc import OperationalError

from longtake.core.errors import LongtakeError, MediaError
from longtake.media.live import fragmented_mp4, write_mp4
from longtake.serve.assets import Assets
from longtake.serve.errors import CANNOT_STORE, BusyError, ConflictError, LostError, NotFoundError, RateLimitError
from longtake.serve.files import VideoFiles
from longtake.serve.host import SessionHost
from longtake.serve.job import Job, frames_as_they_come, path_of, progress_of
from longtake.serve.messages import CueCommand, VideoRequest
from longtake.serve.metrics import Metrics
from longtake.serve.plans import JobPlan, NewVideo, Planner, plan_of
from longtake.serve.session import Session
from longtake.serve.store import UNFINISHED, KeyRow, Store, VideoRow, random_id

MAX_UNFINISHED = 64  # unfinished videos of all keys together
MAX_STREAMS = 32  # streams of unfinished videos; each occupies a thread
KEPT_SESSIONS = 16  # sessions of finished videos, kept so that later videos can share their chunks
CHECK_S = 1.0
MAX_ATTEMPTS = 10  # attempts to make a video whose chunks cannot be stored
RETRY_S = 600.0  # seconds during which storing a video is tried again, for example on a full disk

logger = logging.getLogger("longtake.serve")


class Jobs:
    """The videos of a server. Methods may be called from any thread; a watcher thread follows the sessions."""

    def __init__(
        self,
        host: SessionHost,
        store: Store,
        assets: Assets,
        folder: Path,
        *,
        planner: Planner,
        metrics: Metrics,
    ) -> None:
        """Create the folder and start the watcher thread.

        Args:
            host: generates the videos.
            store: the database.
            assets: uploaded pictures and videos that videos may begin with.
            folder: folder of the finished files.
            planner: plans the videos that are asked for.
            metrics: receives the number of videos by state.
        """
        self.host = host
        self.store = store
        self.assets = assets
        self.files = VideoFiles(folder, host.about.size, host.about.fps)
        self.planner = planner
        self.streams = CapacityLimiter(MAX_STREAMS)
        self._metrics = metrics
        self._running: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._news: SimpleQueue[str | None] = SimpleQueue()
        self._finished: deque[str] = deque()  # ids of the kept sessions, oldest first
        self._watcher = threading.Thread(target=self._watch, name="longtake-jobs", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop the watcher thread. The next `resume` restarts unfinished videos."""
        self._news.put(None)
        self._watcher.join()

    # Requests.

    def start(self, video: NewVideo, key: KeyRow | None = None, metadata: dict[str, str] | None = None) -> VideoRow:
        """Start a video.

        Args:
            video: what `Jobs.planner` has planned.
            key: the key that requests the video.
            metadata: the client's own notes, shown with the video.

        Raises:
            InputError: the video cannot be generated.
            BusyError: too many videos are unfinished.
            RateLimitError: the key has reached its limit of unfinished videos.
        """
        if len(self.store.unfinished_videos()) >= MAX_UNFINISHED:
            raise BusyError(f"{MAX_UNFINISHED} videos are waiting; try again later")
        if key is not None and len(self.store.unfinished_videos(key.id)) >= key.takes:
            raise RateLimitError(f"the key may have {key.takes} videos in the making at once; wait for one", 5)
        owner, of = None if key is None else key.id, video.of
        plan = video.plan.model_copy(update={"metadata": metadata or {}})
        session = self._begun(plan, owner, of, video.shared)
        last = plan.later[-1] if plan.later else plan.opening
        row = VideoRow(
            id=f"video_{random_id(24)}",
            session_id=session.id,
            owner=owner,
            prompt=last.prompt,
            model=self.host.about.model,
            seconds=f"{video.seconds:g}",
            size=str(self.host.about.size),
            seed=last.seed,
            created_at=int(time.time()),
            remixed_from=None if of is None else of.id,
            request=plan.model_dump(mode="json"),
        )
        try:
            row = self.store.add_video(row)
        except OperationalError as error:
            self._forget_session(session.id)
            raise BusyError("the store of videos is locked; try again later") from error
        self._follow(row.id, session, plan)
        self._count()
        return row

    def delete(self, row: VideoRow) -> None:
        """End a video; delete its row, session and files."""
        self._drop(row.id)
        self.store.delete_video(row.id)
        self._forget_session(row.session_id)
        for path in self.files.all(row):
            path.unlink(missing_ok=True)
        self._count()

    def resume(self) -> None:
        """Restart unfinished videos after a server start, and delete the sessions that an earlier process kept."""
        for session_id in self.store.drop_sessions():
            self._forget_session(session_id)
        for row in self.store.unfinished_videos():
            self._begin_again(row)
        self._count()

    def assets_in_use(self) -> set[str]:
        """Ids of the uploads that unfinished videos need."""
        openings = [plan_of(row).opening for row in self.store.unfinished_videos()]
        used = [(o.image, o.clip, o.source.asset if isinstance(o.source, VideoRequest) else None) for o in openings]
        return {asset for assets in used for asset in assets if asset is not None}

    def growing(self, row: VideoRow, stop: threading.Event) -> Iterator[bytes] | None:
        """Stream a fragmented mp4 while the video is generated; None if it is not being generated.

        The iterator blocks until the next piece is there or `stop` is set.
        """
        with self._lock:
            job = self._running.get(row.id)
        return None if job is None else fragmented_mp4(frames_as_they_come(job, stop), self.host.about.fps)

    # Generation.

    def _begun(self, plan: JobPlan, owner: str | None, of: VideoRow | None = None, shared: int = 0) -> Session:
        if of is not None and shared and plan.num_chunks is not None:
            try:
                session = self.host.session(of.session_id or "")
                path = path_of(session)
                if len(path) >= shared:
                    last = plan.later[-1]
                    opening = plan.opening.model_copy(update={"prompt": last.prompt, "seed": last.seed})
                    return self.host.fork(session, path[shared - 1].chunk, opening, num_chunks=plan.num_chunks)
            except (NotFoundError, LostError):
                pass  # its chunks are gone; they are regenerated bit for bit
        session = self.host.open(plan.opening, num_chunks=plan.num_chunks, live=False, owner=owner)
        for change in plan.later:
            session.do(CueCommand(prompt=change.prompt, seed=change.seed, at=plan.first_idx + change.at))
        return session

    def _follow(self, video_id: str, session: Session, plan: JobPlan, attempt: int = 1) -> None:
        self.store.update_video(video_id, session_id=session.id)
        stop = session.log.listen(lambda: self._news.put(video_id))
        with self._lock:
            self._running[video_id] = Job(session, plan, stop, attempt)
        self._news.put(video_id)

    def _watch(self) -> None:
        """Update the store from the sessions until closed."""
        told: dict[str, tuple[str, int]] = {}
        failing: dict[str, float] = {}  # videos that cannot be stored -> since when
        while True:
            try:
                video_id = self._news.get(timeout=CHECK_S)
            except Empty:
                with self._lock:
                    waiting = list(self._running)
            else:
                if video_id is None:
                    return
                waiting = [video_id]
            for video_id in waiting:
                with self._lock:
                    job = self._running.get(video_id)
                if job is None:
                    told.pop(video_id, None)
                    continue
                try:
                    if job.session.ended is not None:
                        self._finish(video_id, job)
                    elif told.get(video_id) != (now := progress_of(job)):
                        told[video_id] = now
                        self.store.update_video(video_id, status=now[0], progress=now[1])
                        self._count()
                    failing.pop(video_id, None)
                except (OperationalError, MediaError):  # the store is locked, or the disk is full: tried again soon
                    told.pop(video_id, None)
                    logger.warning("video %s cannot be stored yet", video_id, exc_info=True)
                    if time.monotonic() - failing.setdefault(video_id, time.monotonic()) > RETRY_S:
                        self._fail(video_id)
                except Exception:  # an error in one video must not stop the others
                    logger.exception("video %s cannot be followed", video_id)
                    self._fail(video_id)

    def _fail(self, video_id: str) -> None:
        self._drop(video_id)
        try:
            self.store.update_video(video_id, status="failed", error="internal error; the server log has the details")
        except Exception:  # the store has failed; the next process restarts the video
            logger.exception("video %s cannot be told to have failed", video_id)

    def _drop(self, video_id: str) -> bool:
        """Stop following a video; returns whether it was followed."""
        with self._lock:
            job = self._running.pop(video_id, None)
        if job is None:
            return False
        job.stop_listening()
        job.over.set()
        return True

    def _finish(self, video_id: str, job: Job) -> None:
        """Write the file of a video whose session has ended; restart the video if its device was lost."""
        session, why = job.session, job.session.ended
        storing_failed = why == "failed" and session.failure == CANNOT_STORE
        if why == "lost" or (storing_failed and job.attempt < MAX_ATTEMPTS):
            if storing_failed:
                time.sleep(CHECK_S)  # somebody may free some space
            if self._drop(video_id):
                self._forget_session(session.id)
                self._begin_again(self.store.video(video_id), job.attempt + 1)
            return
        path = self.files.path(video_id)
        changes: dict[str, object]
        if why in ("length", "source") and session.tip is not None:
            made = path_of(session)
            try:
                chunks = [session.frames(chunk.chunk) for chunk in made]
            except ConflictError:
                return  # the last frames are still being written; their entries trigger another call
            write_mp4(path, chunks, self.host.about.fps)
            changes = {"status": "completed", "progress": 100, "completed_at": int(time.time())}
            changes["seconds"] = (
                f"{round(sum(map(len, chunks)) / self.host.about.fps, 2):g}"  # whole chunks, and a clip
            )
            if job.plan.opening.clip is not None:  # the part of the clip in the video is known only now
                changes["request"] = job.plan.model_copy(update={"first_idx": made[0].index}).model_dump(mode="json")
        else:
            reason = "it was closed before it was done" if why == "closed" else "nothing was made"
            changes = {"status": "failed", "error": session.failure or reason}
        with self._lock:
            deleted = video_id not in self._running
        if not deleted:
            self.store.update_video(video_id, **changes)  # before it is dropped, so that it is tried again
            deleted = not self._drop(video_id)
        if deleted:
            path.unlink(missing_ok=True)
            return
        self._count()
        self._finished.append(session.id)
        while len(self._finished) > KEPT_SESSIONS:
            self._forget_session(self._finished.popleft())

    def _begin_again(self, row: VideoRow, attempt: int = 1) -> None:
        """Restart a video after a server start, the loss of its device, or a full disk."""
        try:
            plan = plan_of(row)
            session = self._begun(plan, row.owner)
        except LongtakeError as error:
            logger.warning("video %s cannot be made: %s", row.id, error)
            self.store.update_video(row.id, status="failed", error=str(error))
        else:
            self._follow(row.id, session, plan, attempt)

    def _forget_session(self, session_id: str | None) -> None:
        if session_id is None:
            return
        try:
            self.host.forget(self.host.session(session_id))
        except NotFoundError:
            return  # deleted already

    def _count(self) -> None:
        counts = self.store.num_videos()
        for state in (*UNFINISHED, "completed", "failed"):
            self._metrics.jobs_counted(state, counts.get(state, 0))
