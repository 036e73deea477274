"""A log tells everyone the same, in order, once; also after a crash."""

import asyncio
import threading
from pathlib import Path

import pytest

from longtake.core.errors import MediaError
from longtake.serve.log import EventLog
from longtake.serve.messages import Ended, Frame, HeadEvent, events


def head(branch: int) -> HeadEvent:
    return HeadEvent(event_id=None, branch=branch, chunk=None, prompt="a tiger")


def test_entries_are_numbered_and_come_back_as_they_were(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    assert log.append(head(0)).n == 0
    assert log.append(Frame(chunk=0, k=0, frame=0), b"\0\1bytes").n == 1
    record = log.record(1)
    assert record.payload == b"\0\1bytes"
    assert events.validate_json(record.event) == Frame(n=1, chunk=0, k=0, frame=0)
    with pytest.raises(IndexError):
        log.record(2)


def test_a_log_goes_on_after_a_crash_that_cut_its_last_entry_short(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EventLog(path)
    for branch in range(5):
        log.append(head(branch))
    whole = path.read_bytes()
    for lost in (1, 3, 7, 40):
        path.write_bytes(whole[:-lost])
        again = EventLog(path)
        assert len(again) == 4
        again.append(Ended(why="closed"))
        assert [events.validate_json(again.record(n).event).type for n in range(5)] == ["head"] * 4 + ["ended"]


def test_readers_at_any_speed_get_every_entry_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    total = 300

    def write() -> None:
        for branch in range(total):
            log.append(head(branch))

    async def read(after: int, pause: float) -> list[int]:
        seen = []
        async for record in log.tail(after):
            seen.append(record.n)
            if pause and record.n % 20 == 0:
                await asyncio.sleep(pause)
            if record.n == total - 1:
                return seen
        return seen

    async def all_of_them() -> list[list[int]]:
        writer = threading.Thread(target=write)
        readers = [asyncio.create_task(read(after, pause)) for after, pause in ((-1, 0), (-1, 0.01), (99, 0))]
        writer.start()
        return await asyncio.gather(*readers)

    fast, slow, late = asyncio.run(all_of_them())
    assert fast == slow == list(range(total))
    assert late == list(range(100, total))


def test_a_full_disk_is_told_and_leaves_the_log_whole(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    (tmp_path / "log").symlink_to(full)
    with pytest.raises(MediaError, match="cannot"):
        EventLog(tmp_path / "log").append(head(0))


def test_what_is_cut_is_gone(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    for branch in range(4):
        log.append(head(branch))
    log.cut(2)
    assert len(log) == 2
    assert log.append(Ended(why="closed")).n == 2
    assert len(EventLog(tmp_path / "log")) == 3


def test_any_number_of_logs_needs_no_descriptors(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    logs = [EventLog(tmp_path / f"log-{i}") for i in range(60)]
    for i, log in enumerate(logs):
        log.append(head(i))
    assert [events.validate_json(log.record(0).event).branch for log in logs] == list(range(60))  # type: ignore[union-attr]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_reading_ends_when_the_log_is_deleted(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    for branch in range(3):
        log.append(head(branch))

    async def read() -> list[int]:
        seen = []
        async for record in log.tail():
            seen.append(record.n)
            log.path.unlink(missing_ok=True)
        return seen

    assert asyncio.run(read()) == [0]
