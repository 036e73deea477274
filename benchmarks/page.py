"""`python -m benchmarks.page`: the page in a real browser on the default model, and screenshots of each of its states.

    python -m benchmarks.page time  [--takes 8]        click to first painted frame; delay added to a chunk
    python -m benchmarks.page slow  [--takes 8]        a cue on a link at a third of the rate that the video needs
    python -m benchmarks.page shots [--out out/page]   a picture of every state, dark and light, wide and narrow

Needs playwright and Debian's chromium (or LONGTAKE_CHROMIUM).
"""

import argparse
import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from benchmarks.serve import middle, server
from tests.browser.conftest import Wire, chromium, wait

PROMPT = "a tiger walks through a forest"
# when frames come and are painted, noted before the page's own scripts run
WATCH = """
window.arrived = []; window.painted = []; window.made = {}; window.prompts = {}; window.bytes = 0;
const Real = window.WebSocket;
window.WebSocket = class extends Real {
  constructor(...args) {
    super(...args);
    this.addEventListener('message', ({data}) => {
      if (typeof data === 'string') {
        const event = JSON.parse(data);
        if (event.type !== 'chunk') return;
        window.made[event.chunk] = event.made_at * 1000;
        window.before ??= event.prompt;
        window.prompts[event.chunk] = event.prompt;
      } else {
        window.bytes += data.byteLength;
        const length = new DataView(data).getUint32(0, true);
        const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
        if (head.k === 0) window.arrived.push(Date.now() - window.made[head.chunk]);
      }
    });
  }
};
addEventListener('DOMContentLoaded', () => setTimeout(() => {
  window.longtake.onframe = (frame, chunk) => window.painted.push([frame, performance.now(), window.prompts[chunk]]);
}));
"""


def visited(browser: Browser, base: str, **options: Any) -> Page:
    """The page in a context of its own."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}).new_page()
    page.add_init_script(WATCH)
    page.goto(base)
    wait(page, "Boolean(window.longtake && window.longtake.onframe)")
    return page


def begun(page: Page, prompt: str) -> float:
    """Milliseconds from Enter to the first painted frame."""
    box = page.get_by_role("textbox").first
    box.fill(prompt)
    clicked = page.evaluate("performance.now()")
    box.press("Enter")
    wait(page, "window.painted.length > 0")
    return page.evaluate("window.painted[0][1]") - clicked


def timed(takes: int) -> dict[str, object]:
    """First painted frames and delays, on takes one after the other."""
    first_ms, delays_ms = [], []
    with server("tiny-world") as (base, _), chromium() as opened:
        for number in range(takes):
            page = visited(opened, base)
            first_ms.append(begun(page, f"a tiger walks through a forest, take {number}"))
            wait(page, "window.painted.length > 80")
            delays_ms += page.evaluate("window.arrived")
            page.context.close()
    return {
        "takes": takes,
        "click_to_painted_p50_ms": middle(first_ms),
        "click_to_painted_max_ms": round(max(first_ms)),
        "chunks": len(delays_ms),
        "added_delay_p50_ms": middle(delays_ms),
        "added_delay_p95_ms": middle(delays_ms, 0.95),
    }


def on_a_slow_link(cues: int) -> dict[str, object]:
    """How long a cue takes to the screen when frames arrive three times too slowly, and where it began."""
    waited_s = []
    with server("tiny-world") as (base, _), chromium() as opened:
        port = int(base.rsplit(":", 1)[1])
        page = visited(opened, base)
        begun(page, PROMPT)
        wait(page, "window.painted.length > 120")
        needed = page.evaluate("window.bytes / window.painted.length * 16")
        page.context.close()
        slow = Wire(port, needed / 3)
        page = visited(opened, f"http://127.0.0.1:{slow.port}/")
        begun(page, PROMPT)
        painted = 40
        for cue in range(cues):
            wait(page, "n => window.painted.length > n", painted)
            box = page.get_by_role("textbox").first
            box.fill(("night falls", "the sun rises")[cue % 2])
            said = page.evaluate("performance.now()")
            box.press("Enter")
            wait(page, "said => window.painted.some(([, at, prompt]) => at > said && prompt !== window.before)", said)
            waited_s.append((page.evaluate("window.painted.at(-1)[1]") - said) / 1000)
            painted = page.evaluate("(window.before = window.painted.at(-1)[2], window.painted.length)") + 20
        page.context.close()
        slow.close()
    return {
        "needed_kbit_s": round(needed * 8 / 1000),
        "link_kbit_s": round(needed * 8 / 3000),
        "cues": len(waited_s),
        "cue_p50_s": middle(waited_s),
        "cue_max_s": round(max(waited_s), 2),
    }


def shots(out: Path) -> None:
    """Pictures to look at."""
    out.mkdir(parents=True, exist_ok=True)
    with server("tiny-world") as (base, _), chromium() as opened:
        for name, options in (
            ("dark", {"color_scheme": "dark"}),
            ("light", {"color_scheme": "light"}),
            ("phone", {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}),
        ):
            page = visited(opened, base, **options)
            page.wait_for_timeout(500)
            page.screenshot(path=out / f"{name}-first.png")
            begun(page, "a sailboat sails on the sea")
            wait(page, "window.painted.length > 70")
            box = page.get_by_role("textbox").first
            box.fill("snow starts to fall")
            box.press("Enter")
            page.wait_for_timeout(400)
            page.screenshot(path=out / f"{name}-cue.png")
            wait(page, "window.painted.length > 160")
            page.screenshot(path=out / f"{name}-playing.png")
            page.evaluate("window.longtake.player.seek(30)")
            box.fill("night falls")
            page.wait_for_timeout(500)
            page.screenshot(path=out / f"{name}-back.png")
            page.get_by_role("button", name="Branch from").click()
            page.wait_for_timeout(5000)
            page.screenshot(path=out / f"{name}-branch.png")
            page.context.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "slow", "shots"))
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("out/page"))
    args = parser.parse_args()
    if args.what == "time":
        print(json.dumps(timed(args.takes)))
    elif args.what == "slow":
        print(json.dumps(on_a_slow_link(args.takes)))
    else:
        shots(args.out)
