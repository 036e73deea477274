"""The takes of a session that a worker begins, or goes on with after another one."""

from collections.abc import Callable
from pathlib import Path

from longtake.serve.errors import ConflictError
from longtake.serve.handover import Handover
from longtake.serve.opening import begin_take
from longtake.studio.script import Script
from longtake.studio.sources import Source
from longtake.studio.studio import Studio
from longtake.studio.takes import Take


def takes_of(
    studio: Studio, handover: Handover, asset: Callable[[str], Path], shared: Take | None
) -> tuple[list[Take | None], Source | None]:
    """Takes of a session by branch, and its live source, if it follows one.

    Args:
        studio: opens the takes.
        handover: the session.
        asset: returns the path of an upload, given its id.
        shared: take with its head where the session's only branch goes on, of a session in this process.

    Raises:
        LongtakeError: the session cannot be begun, or not be gone on with.
    """
    current = handover.scripts[-1]
    if current is None:
        if handover.chunks:
            raise ConflictError("the take followed a source, and cannot go on after its worker was lost")
        take, source = begin_take(studio, handover.facts.opening, asset)
        return [take], source
    if shared is not None:
        return [studio.resume(current, (), branch_of=shared)], None
    if handover.latents is None:
        return [*[None] * (len(handover.scripts) - 1), studio.replay(current)], None
    takes: list[Take | None] = []
    for branch, (after, script) in enumerate(zip(handover.branches, handover.scripts, strict=True)):
        assert script is not None, "a session has scripts of all its branches or of none"
        own = [handover.latents[event.chunk] for event in handover.chunks if event.branch == branch]
        parent = None
        if branch > 0:
            take = takes[0 if after is None else handover.chunks[after].branch]
            assert take is not None
            parent = take.retake(at=0 if after is None else handover.chunks[after].index + 1)
        is_last = branch == len(handover.branches) - 1
        from_window = is_last and handover.rebuild
        takes.append(studio.resume(_from_window(script, handover) if from_window else script, own, branch_of=parent))
    return takes, None


def _from_window(script: Script, handover: Handover) -> Script:
    """Script in which the memory before the next chunk is rebuilt from the latents in the window."""
    tip = tip_of(handover)
    if tip is None:
        return script
    return script.model_copy(update={"rebuilt": [*script.rebuilt, handover.chunks[tip].index + 1]})


def tip_of(handover: Handover) -> int | None:
    """Chunk that the next one follows; None at the beginning."""
    last = len(handover.branches) - 1
    own = [event.chunk for event in handover.chunks if event.branch == last]
    return own[-1] if own else handover.branches[-1]
