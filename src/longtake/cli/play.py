"""`longtake play`: a simple game, steered by arrow keys and restyled by the model, in the terminal or in a file."""

import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longtake.cli.directing import Device
from longtake.core.errors import InputError

if TYPE_CHECKING:
    from longtake.core.shapes import Pictures
    from longtake.worlds.game import Game

ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}
CHANGES = {"n": "night falls", "s": "snow starts to fall", "r": "rain starts to fall"}
HELD_S = 0.25  # a terminal reports no key releases: a key counts as held for this long
MOVE = re.compile(r"(left|right|up|down|wait)(\+(?:left|right|up|down))?:([0-9]+(?:\.[0-9]+)?)s")


def play(
    prompt: Annotated[str, typer.Argument(help="What the model makes of the game.")] = "a tiger walks on the grass",
    *,
    subject: Annotated[str, typer.Option(metavar="NAME", help="Who is steered.")] = "tiger",
    place: Annotated[
        str, typer.Option(metavar="NAME", help="Where; it gives the ground and the camera.")
    ] = "green_park",
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Above 0 (the game's look as it is) up to 1 (nothing of it is left); as suits the model if not given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed and keys give the same take.")] = 0,
    model: Annotated[str, typer.Option(metavar="NAME", help="A preset or a folder.")] = "tiny-world",
    device: Device = None,
    keys: Annotated[
        str | None,
        typer.Option(metavar="MOVES", help='Play without a keyboard: "right:2s left:1s right+up:0.5s wait:1s".'),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the game and the take side by side: .mp4, .gif, .webp, .png."),
    ] = None,
) -> None:
    """Play a simple game that the model restyles.

    In the terminal: arrow keys steer, n lets night fall, s lets it snow, r lets it rain, q ends. The take is one
    chunk behind the game. With --keys nothing is shown; give --out to have it in a file.
    """
    moves = None if keys is None else parsed_moves(keys)
    if moves is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError('there is no terminal to play in; give --keys "right:2s left:1s" and --out FILE')
    if (moves is None) != (out is None):
        raise InputError(
            "--keys writes to --out and shows nothing, the keyboard shows and writes nothing: give both or none"
        )

    from longtake.media.animations import check_suffix
    from longtake.media.targets import check_target
    from longtake.studio.studio import open_studio
    from longtake.worlds.game import Game

    if out is not None:
        check_suffix(out)
        check_target(out)
    with open_studio(model, device=device) as studio:
        game = Game.new(subject, place, studio.size)
        if moves is not None:
            assert out is not None
            write_pairs(out, studio, played(game, moves), prompt, strength=strength, seed=seed)
            return
        with keyboard() as pressed:
            in_terminal(studio, game, prompt, pressed, strength=strength, seed=seed)


def parsed_moves(text: str) -> list[tuple[frozenset[str], float]]:
    """Parse moves such as "right:2s left+up:1s" into held keys and seconds.

    Raises:
        InputError: a move cannot be parsed, or all last less than 0.1 s or more than 600 s.
    """
    moves = []
    for word in text.split():
        parts = MOVE.fullmatch(word)
        if parts is None:
            raise InputError(f'a move reads "right:2s" or "left+up:0.5s" or "wait:1s", got "{word[:40]}"')
        held = {parts[1], (parts[2] or "").lstrip("+")} - {"wait", ""}
        moves.append((frozenset(held), float(parts[3])))
    total = sum(seconds for _, seconds in moves)
    if not 0.1 <= total <= 600:
        raise InputError(f"the moves last between 0.1 and 600 s in all, got {total:g} s")
    return moves


def played(game: "Game", moves: list[tuple[frozenset[Any], float]]) -> Iterator["Pictures"]:
    """Play the moves, and yield the game's pictures frame by frame."""
    for held, seconds in moves:
        for _ in range(round(seconds * game.scene.fps)):
            yield game.picture()
            game = game.step(held)


def write_pairs(out: Path, studio: Any, game: Iterator[Any], prompt: str, *, strength: float | None, seed: int) -> None:
    """Write the game and the restyled take side by side, chunk by chunk."""
    import torch

    from longtake.core.shapes import PictureSize
    from longtake.media.animations import open_writer

    waiting: list[Any] = []

    def kept() -> Iterator[Any]:
        for picture in game:
            waiting.append(picture)
            yield picture

    size = PictureSize(height=studio.size.height, width=2 * studio.size.width)
    take = studio.restyle(kept(), prompt, strength=strength, seed=seed)
    with open_writer(out, fps=studio.fps, size=size) as writer:
        for chunk in take.stream():
            num = len(chunk.frames)
            writer.push(torch.cat((torch.stack(waiting[:num]), chunk.frames), 2))
            del waiting[:num]
    sys.stdout.write(f"{out} · {take.duration_s:.2f} s\n")


@contextmanager
def keyboard() -> Iterator[Any]:
    """Read the terminal without line buffering; yields a function that returns what was typed since its last call."""
    import os
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield lambda: os.read(sys.stdin.fileno(), 64).decode(errors="ignore") if _has_input() else ""
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _has_input() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def in_terminal(  # noqa: PLR0915  (three loops that share local state)
    studio: Any, game: "Game", prompt: str, typed: Any, *, strength: float | None, seed: int
) -> None:
    """Run the game in real time, the model and the screen concurrently, connected by bounded queues."""
    from longtake.studio.sources import LiveSource

    source = LiveSource(studio.size)
    take = studio.restyle(source, prompt, strength=strength, seed=seed)
    screen: Queue[Any] = Queue(maxsize=1)

    def run_game(game: "Game") -> None:
        until: dict[Any, float] = {}
        due = time.perf_counter()
        while not ended.is_set():
            text, now = typed(), time.perf_counter()
            until |= {key: now + HELD_S for code, key in ARROWS.items() if code in text}
            letters = re.sub(r"\x1b\[.", "", text)
            if "q" in letters:
                return
            for letter, change in CHANGES.items():
                if letter in letters:
                    take.cue(change)
            source.push(game.picture())
            game = game.step(frozenset(key for key, end in until.items() if end > now))
            due = max(due + 1 / studio.fps, now)
            time.sleep(max(0.0, due - time.perf_counter()))

    def play_on() -> None:
        try:
            run_game(game)
        finally:
            source.close()

    def show() -> None:
        try:
            while (pictures := screen.get()) is not None:
                for picture in pictures:
                    sys.stdout.write("\x1b[H" + half_blocks(picture))
                    sys.stdout.flush()
                    time.sleep(1 / studio.fps)
        finally:
            ended.set()

    ended = Event()
    threads = [Thread(target=play_on, daemon=True), Thread(target=show, daemon=True)]
    sys.stdout.write("\x1b[2J\x1b[?25l")
    try:
        for thread in threads:
            thread.start()
        for chunk in take.stream():
            while not ended.is_set():
                try:
                    screen.put(chunk.frames, timeout=0.2)
                    break
                except Full:
                    continue
    finally:
        ended.set()
        with suppress(Full):
            screen.put(None, timeout=2.0)
        threads[1].join(timeout=2.0)
        sys.stdout.write("\x1b[0m\x1b[?25h\n")
    sys.stdout.write(f"{take.duration_s:.1f} s made, {source.num_dropped} frames of the game were dropped\n")


def half_blocks(picture: Any) -> str:
    """Convert a picture to text: each character shows two pixels, one above the other, in true colour."""
    rows = picture.tolist()
    lines = []
    for top, bottom in zip(rows[::2], rows[1::2], strict=False):
        line, last = [], None
        for upper, lower in zip(top, bottom, strict=True):
            colours = (*upper, *lower)
            if colours != last:
                line.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*colours))
                last = colours
            line.append("▀")
        lines.append("".join(line))
    return "\x1b[0m\n".join(lines) + "\x1b[0m"
