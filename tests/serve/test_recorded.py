"""What a session's folder tells of it, after a crash."""

from pathlib import Path

import pytest
import torch

from longtake.serve.handover import LATENTS, LatentsFile
from longtake.serve.log import EventLog
from longtake.serve.messages import (
    AcceptedCue,
    Applied,
    ChunkEvent,
    Ended,
    Frame,
    HeadEvent,
    Open,
    Opened,
    Point,
    events,
)
from longtake.serve.recorded import FACTS, LOG, SessionMeta
from longtake.serve.resuming import tip_of
from longtake.serve.session import Session

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


@pytest.mark.parametrize("told", [True, False])
def test_the_next_process_makes_the_log_whole_and_keeps_how_it_ended(folder: Path, *, told: bool) -> None:
    if told:
        EventLog(folder / LOG).append(Ended(why="lost", message="the process has stopped"))
    facts = SessionMeta.model_validate_json((folder / FACTS).read_bytes())
    session = Session(folder, facts, EventLog(folder / LOG))
    assert session.ended == ("lost" if told else None)
    kinds = [events.validate_json(session.log.record(n).event).type for n in range(len(session.log))]
    assert kinds == ["opened", "chunk", *["frame"] * FRAMES, *(["ended"] if told else [])]
    assert [event.chunk for event in session.chunks()] == [0]
    assert session.tip == 0
    assert session.frames(0) == [b"picture"] * FRAMES
    again = Session(folder, facts, EventLog(folder / LOG))
    assert (len(again.log), again.ended) == (len(kinds), session.ended)


def test_what_the_log_says_of_branches_and_cues_goes_to_the_worker_that_goes_on(folder: Path) -> None:
    facts = SessionMeta.model_validate_json((folder / FACTS).read_bytes())
    log = Session(folder, facts, EventLog(folder / LOG))._log  # without the chunk that was cut off
    here, later = Point(index=1, frame=3, t=0.2), Point(index=2, frame=6, t=0.4)
    log.append(AcceptedCue(event_id="left", cue=1, words="fog", accepted_at=here, due_at=later))
    log.append(HeadEvent(event_id=None, branch=1, chunk=0, prompt="a car"))
    log.append(AcceptedCue(event_id="shown", cue=2, words="rain", accepted_at=here, due_at=here))
    log.append(AcceptedCue(event_id="waits", cue=3, words="snow", accepted_at=here, due_at=later))
    event = log.append(chunk(1).model_copy(update={"branch": 1, "cues": [2]}))
    log.append(Applied(event_id="shown", cue=2, chunk=1, at=here))
    for k in range(FRAMES):
        log.append(Frame(chunk=1, k=k, frame=FRAMES + k), b"picture")
    session = Session(folder, facts, EventLog(folder / LOG))
    handover = session.handover()
    assert handover.branches == [None, 0]
    assert [(cue.branch, cue.event_id, cue.due) for cue in handover.cues] == [
        (0, "left", None),
        (1, "shown", None),
        (1, "waits", 2),
    ]
    assert handover.chunks[-1] == event
    assert (tip_of(handover), handover.next_n) == (1, len(log))
    assert handover.latents is None


def test_latents_are_read_back_and_one_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    latents = {number: torch.full((1, 4, 3, 2, 2), float(number)) for number in range(3)}
    kept = LatentsFile(tmp_path)
    kept.append({0: latents[0], 1: latents[2]})
    kept.append({1: latents[1]})  # made again: the chunk was not in the log
    kept.append({2: latents[2]})
    found = kept.read()
    assert all(torch.equal(found[number], latent) for number, latent in latents.items())
    data = (tmp_path / LATENTS).read_bytes()
    (tmp_path / LATENTS).write_bytes(data[:-5])
    kept = LatentsFile(tmp_path)
    assert kept.read().keys() == {0, 1}
    kept.append({2: latents[0]})
    assert kept.read()[2].equal(latents[0])
    kept.remove()
    assert kept.read() == {}
