"""`python -m benchmarks.serve`: a server under load, on loopback, with viewers that behave and some that do not.

    python -m benchmarks.serve held   [--seconds 20]                takes held in real time, alone and made together
    python -m benchmarks.serve crowd  [--viewers 50] [--seconds 180] everyone opens a take; some read slowly
    python -m benchmarks.serve readers [--seconds 30]               one take: do slow readers slow the others?

One JSON object a line. The viewers share the machine with the server, so these are lower bounds.
"""

import argparse
import asyncio
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

PROMPTS = ("a tiger walks through a forest", "a sailboat sails on the sea", "an elephant walks on a city street")

WEIGHED_EVERY_S = 5


@dataclass
class Seen:
    """What a viewer saw."""

    frames: int = 0
    first_s: float | None = None
    gaps: int = 0  # entries of the log that were missing or came twice
    refused: str | None = None
    said: Counter[str] = field(default_factory=Counter)


@contextmanager
def server(model: str, *options: str) -> Iterator[tuple[str, int]]:
    """The address of a server of its own, and its process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "longtake", "serve", "--model", model, "--port", "0", "--folder", folder]
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r"http://[^\s]+", line)
            assert found, line
            for _ in range(600):
                try:
                    httpx.get(f"{found[0]}/readyz").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield found[0], process.pid
        finally:
            process.terminate()
            process.wait()


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1024**2


async def view(base: str, number: int, seconds: float, *, slow: bool = False) -> Seen:
    """Open a take, play it at its own speed, say what is seen, change the prompt now and then."""
    seen, begun = Seen(), time.monotonic()
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        opening = {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number}
        answer = await client.post("/api/takes", json=opening)
    if answer.status_code != 201:
        seen.refused = f"{answer.status_code} {answer.json()['error']['code']}"
        return seen
    await watch(base, answer.json()["id"], seen, begun, seconds, random.Random(number), slow=slow)
    return seen


async def watch(
    base: str, take: str, seen: Seen, begun: float, seconds: float, rng: random.Random, *, slow: bool
) -> None:
    """Look at a take for a while."""
    url = f"{base.replace('http', 'ws')}/api/takes/{take}/live"
    try:
        async with asyncio.timeout(seconds), connect(url, max_size=None) as socket:
            await play(socket, seen, begun, rng, slow=slow)
    except TimeoutError:
        pass
    except WebSocketException as error:
        seen.said[type(error).__name__] += 1


async def play(socket: Any, seen: Seen, begun: float, rng: random.Random, *, slow: bool) -> None:
    """What a player does: frames come, a clock shows them, each chunk is acknowledged when it comes on."""
    due, expected, fps = 0.0, 0, 16.0
    async for message in socket:
        if slow:
            await asyncio.sleep(0.2)
        if isinstance(message, str):
            event = json.loads(message)
            seen.said[event["type"]] += 1
            fps = event.get("fps", fps)
        else:
            event = json.loads(message[4 : 4 + struct.unpack_from("<I", message)[0]])
        if "n" in event:
            seen.gaps += event["n"] != expected
            expected = event["n"] + 1
        if event["type"] != "frame":
            continue
        now = time.monotonic()
        seen.frames += 1
        seen.first_s = seen.first_s or now - begun
        if event["k"] == 0:
            due = max(due, now)
            await asyncio.sleep(due - now)
            await socket.send(json.dumps({"type": "seen", "chunk": event["chunk"]}))
            if rng.random() < 0.05:
                await socket.send(json.dumps({"type": "cue", "change": rng.choice(["night falls", "snow falls"])}))
        due += 1 / fps


def middle(values: list[float], share: float = 0.5) -> float | None:
    """A quantile."""
    ordered = sorted(values)
    return round(ordered[int(share * (len(ordered) - 1))], 3) if ordered else None


def held(model: str, seconds: float) -> Iterator[dict[str, object]]:
    """How many frames a second are made when more and more takes are watched, alone and together."""
    for batch in (1, 2, 4):
        for takes in (1, 2, 3, 4):
            if takes < batch:
                continue
            with server(model, "--max-takes", str(takes), "--max-batch", str(batch)) as (base, _):

                async def all_of_them(base: str = base, takes: int = takes) -> list[Seen]:
                    return await asyncio.gather(*(view(base, i, seconds) for i in range(takes)))

                seen = asyncio.run(all_of_them())
            rates = [s.frames / (seconds - (s.first_s or 0)) for s in seen]
            yield {
                "takes": takes,
                "max_batch": batch,
                "fps_each": [round(rate, 1) for rate in rates],
                "fps_in_all": round(sum(rates), 1),
                "first_frame_s": middle([s.first_s or seconds for s in seen]),
            }


def readers(model: str, seconds: float) -> Iterator[dict[str, object]]:
    """One take, looked at by three viewers; then by three more, who read five messages a second."""
    for num_slow in (0, 3):
        with server(model) as (base, _):
            begun = time.monotonic()
            opening = {"prompt": PROMPTS[0], "seed": 1}
            take = httpx.post(f"{base}/api/takes", json=opening, timeout=30).json()["watch"]
            seen = [Seen() for _ in range(3 + num_slow)]

            async def all_of_them(
                base: str = base, take: str = take, seen: list[Seen] = seen, begun: float = begun
            ) -> None:
                each = (
                    watch(base, take, one, begun, seconds, random.Random(i), slow=i >= 3) for i, one in enumerate(seen)
                )
                await asyncio.gather(*each)

            asyncio.run(all_of_them())
        rates = [round(one.frames / (seconds - (one.first_s or 0)), 1) for one in seen]
        yield {"slow": num_slow, "fps": rates[:3], "fps_of_slow": rates[3:], "gaps": sum(one.gaps for one in seen)}


def crowd(model: str, viewers: int, seconds: float) -> dict[str, object]:
    """Everyone at once."""
    with server(model) as (base, pid):
        memory = [rss_mib(pid)]

        async def everyone() -> list[Seen]:
            async def weigh() -> None:
                while True:
                    await asyncio.sleep(WEIGHED_EVERY_S)
                    memory.append(rss_mib(pid))

            weighing = asyncio.create_task(weigh())
            seen = await asyncio.gather(*(view(base, i, seconds, slow=i % 10 == 9) for i in range(viewers)))
            weighing.cancel()
            return seen

        seen = asyncio.run(everyone())
        alive = httpx.get(f"{base}/readyz").status_code
    return {
        "viewers": viewers,
        "seconds": seconds,
        "refused": dict(Counter(s.refused for s in seen if s.refused)),
        "watched": sum(s.frames > 0 for s in seen),
        "fps_of_slow_readers": [round(s.frames / seconds, 1) for s in seen[9::10] if s.frames],
        "fps_of_others": [round(s.frames / seconds, 1) for i, s in enumerate(seen) if s.frames and i % 10 != 9],
        "gaps": sum(s.gaps for s in seen),
        "events": dict(sum((s.said for s in seen), Counter())),
        "rss_mib_each_30_s": [round(weight) for weight in memory[:: 30 // WEIGHED_EVERY_S]],
        "ready_afterwards": alive,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("held", "crowd", "readers"))
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float)
    args = parser.parse_args()
    if args.what == "held":
        for line in held(args.model, args.seconds or 20):
            print(json.dumps(line), flush=True)
    elif args.what == "readers":
        for line in readers(args.model, args.seconds or 30):
            print(json.dumps(line), flush=True)
    else:
        print(json.dumps(crowd(args.model, args.viewers, args.seconds or 180)), flush=True)
