"""What a session's folder tells of it, after a crash."""

from pathlib import Path

import pytest

from longtake.serve.errors import ConflictError
from longtake.serve.log import EventLog
from longtake.serve.messages import ChunkEvent, Ended, Frame, Open, Opened, events
from longtake.serve.recorded import FACTS, LOG, Finished, SessionMeta
from longtake.serve.sessions import LiveSession

FRAMES = 3


def chunk(number: int) -> ChunkEvent:
    return ChunkEvent(
        chunk=number, parent=number - 1 if number else None, branch=0, index=number, start_frame=FRAMES * number,
        num_frames=FRAMES, prompt="a boat", cues=[], made_at=0.0, timings={},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a take whose second chunk was being written when its process was killed; another one has said so."""
    opening = Open(prompt="a boat", seed=1)
    facts = SessionMeta(id="a", watch_id="b", created_at=0.0, opening=opening, num_chunks=None, live=True, owner=None)
    (tmp_path / FACTS).write_text(facts.model_dump_json(), "utf-8")
    log = EventLog(tmp_path / LOG)
    log.append(
        Opened(
            model="test", prompt="a boat", seed=1, fps=16, width=48, height=32, codec="avc1.42c00a", lead=3, source=None
        )
    )
    for number, num_frames in ((0, FRAMES), (1, FRAMES - 1)):
        log.append(chunk(number))
        for k in range(num_frames):
            log.append(Frame(chunk=number, k=k, frame=FRAMES * number + k), b"picture")
    return tmp_path


def test_a_finished_session_is_read_and_left_as_it_is(folder: Path) -> None:
    EventLog(folder / LOG).append(Ended(why="lost", message="the process has stopped"))
    before = (folder / LOG).read_bytes()
    session = Finished(folder)
    assert (session.ended, session.failure) == ("lost", "the process has stopped")
    assert [event.chunk for event in session.chunks()] == [0]
    assert session.tip == 0
    assert session.frames(0) == [b"picture"] * FRAMES
    assert (folder / LOG).read_bytes() == before


def test_one_that_is_not_over_is_refused_and_left_as_it_is(folder: Path) -> None:
    before = (folder / LOG).read_bytes()
    with pytest.raises(ConflictError, match="not over"):
        Finished(folder)
    assert (folder / LOG).read_bytes() == before


@pytest.mark.parametrize("told", [True, False])
def test_the_next_process_makes_the_log_whole_and_keeps_how_it_ended(folder: Path, *, told: bool) -> None:
    if told:
        EventLog(folder / LOG).append(Ended(why="lost", message="the process has stopped"))
    facts = SessionMeta.model_validate_json((folder / FACTS).read_bytes())
    session = LiveSession(folder, facts, EventLog(folder / LOG), take=None, asset=Path)
    assert session.ended == ("lost" if told else "closed")
    kinds = [events.validate_json(session.log.record(n).event).type for n in range(len(session.log))]
    assert kinds == ["opened", "chunk", *["frame"] * FRAMES, "ended"]
    again = LiveSession(folder, facts, EventLog(folder / LOG), take=None, asset=Path)
    assert (len(again.log), again.ended) == (len(kinds), session.ended)
