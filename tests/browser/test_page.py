"""The studio's page in a real browser. Every picture carries its number, so what is drawn is known to the frame."""

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.barcode import number_of
from tests.browser.conftest import FAR, Wire, wait

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]

WATCH = """() => {
  window.drawn = [];
  window.longtake.onframe = (frame, chunk) => window.drawn.push([frame, chunk, performance.now()]);
}"""
# the grey values of a row through the barcode, as they stand on the canvas
READ = """() => {
  const canvas = document.getElementById('screen');
  const copy = document.createElement('canvas');
  copy.width = canvas.width; copy.height = canvas.height;
  const ink = copy.getContext('2d');
  ink.drawImage(canvas, 0, 0);
  const row = Math.round(canvas.height * 8 / 96);
  const data = ink.getImageData(0, row, canvas.width, 1).data;
  return Array.from({length: canvas.width}, (_, x) => data[4 * x + 1]);
}"""


def begun(
    visit: Visit, port: int, prompt: str = "a red boat on the sea", host: str = "127.0.0.1", **options: Any
) -> Any:
    """A page on which a take has begun to play."""
    page = visit(f"http://{host}:{port}/", **options)
    page.evaluate(WATCH)
    box = page.get_by_role("textbox").first
    box.fill(prompt)
    box.press("Enter")
    wait(page, "window.drawn.length > 0")
    return page


def tree_has(chunk: str) -> str:
    """Does the newest take have such a chunk, as the server tells it?"""
    newest = "fetch('/api/takes').then(r => r.json()).then(g => fetch('/api/takes/' + g.takes[0].id))"
    return f"{newest}.then(r => r.json()).then(t => t.tree.some({chunk}))"


def stand(page: Any, frame: int) -> None:
    """Wait for a frame and stay there: one that plays on is shown for a sixteenth of a second only."""
    page.evaluate("frame => { window.longtake.player.pause(); window.longtake.player.seek(frame); }", frame)
    wait(page, "frame => window.longtake.player.position().frame === frame", frame)


def shown(page: Any) -> int:
    return number_of(page.evaluate(READ))


def drawn(page: Any) -> list[int]:
    return [frame for frame, *_ in page.evaluate("window.drawn")]


def test_a_prompt_becomes_moving_pictures_in_order(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 40")
    frames = drawn(page)
    assert frames == list(range(len(frames)))
    page.evaluate("window.longtake.player.pause()")
    assert shown(page) == page.evaluate("window.longtake.player.position().frame")


def test_a_cue_is_shown_as_accepted_and_then_as_applied(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    box = page.get_by_role("textbox", name="What happens next?")
    box.fill("night falls")
    box.press("Enter")
    page.get_by_text("night falls").first.wait_for()
    wait(page, tree_has("c => c.prompt.includes('night falls')"))


def test_sixty_seeks_show_the_very_frame(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 80")
    page.evaluate("window.longtake.player.pause()")
    last = max(drawn(page))
    rng = random.Random(0)
    for frame in (rng.randrange(last + 1) for _ in range(60)):
        stand(page, frame)
        assert shown(page) == frame


def test_cut_connections_lose_and_repeat_nothing(visit: Visit, port: int, request: pytest.FixtureRequest) -> None:
    wire = Wire(port)
    request.addfinalizer(wire.close)
    page = begun(visit, wire.port)
    rng = random.Random(1)
    for _ in range(8):
        wait(page, "n => window.drawn.length > n", len(drawn(page)) + 10)
        wire.cut(rng.uniform(0, 1.0))
    wait(page, "n => window.drawn.length > n", len(drawn(page)) + 30)
    frames = drawn(page)
    assert frames == list(range(len(frames)))


def test_a_branch_goes_on_from_where_the_viewer_stands(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 50")
    stand(page, 15)
    box = page.get_by_role("textbox").first
    box.fill("a blue car")
    page.get_by_role("button", name="Branch from").click()
    wait(page, tree_has("c => c.branch === 1 && c.parent === 1 && c.start_frame === 21"))


def test_a_take_that_is_over_goes_on_from_where_it_is_looked_at(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 40")
    page.get_by_role("button", name="End this take").click()
    page.get_by_role("status").get_by_text("Complete").wait_for()
    stand(page, 15)
    before = page.url
    page.get_by_role("textbox", name="What happens next?").fill("night falls")
    page.get_by_role("button", name="Go on from 00:01.3").click()
    wait(page, tree_has("c => c.parent === 1 && c.start_frame === 21 && c.prompt.includes('night falls')"))
    wait(page, "window.longtake.player.position().frame > 21")
    assert page.url != before
    expect(page.get_by_role("button", name="End this take")).to_be_visible()
    page.evaluate("window.longtake.player.pause()")
    assert shown(page) == page.evaluate("window.longtake.player.position().frame")


def test_a_branch_is_starred_named_and_hidden_and_the_browser_remembers(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 50")
    stand(page, 15)
    page.get_by_role("textbox").first.fill("a blue car")
    page.get_by_role("button", name="Branch from").click()
    page.get_by_role("button", name="Star branch 2").click()
    page.get_by_role("button", name="Name branch 2").click()
    page.get_by_role("textbox", name="Name of branch 2").fill("the blue one")
    page.keyboard.press("Enter")
    expect(page.locator(".branch .what", has_text="the blue one")).to_be_visible()
    page.get_by_role("button", name="Hide branch 1").click()
    page.get_by_role("button", name="Show 1 hidden").wait_for()
    expect(page.locator(".branch")).to_have_count(1)
    page.reload()
    page.locator(".branch .what", has_text="the blue one").wait_for()
    expect(page.get_by_role("button", name="Star branch 2")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Show 1 hidden").click()
    expect(page.locator(".branch")).to_have_count(2)


def test_the_edge_of_a_span_is_dragged_to_say_its_words_earlier(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 40")
    box = page.get_by_role("textbox").first
    box.fill("night falls")
    box.press("Enter")
    wait(page, tree_has("c => c.prompt.includes('night falls')"))
    page.locator(".edge").wait_for()
    film = page.locator(".track").bounding_box()
    edge = page.locator(".edge").bounding_box()
    page.mouse.move(edge["x"] + edge["width"] / 2, edge["y"] + edge["height"] / 2)
    page.mouse.down()
    page.mouse.move(film["x"] + 6 * 20, edge["y"] + 10, steps=5)  # frame 20: nearest to where chunk 2 begins, 21
    page.locator(".track .branch-mark").wait_for()
    page.mouse.up()
    wait(page, tree_has("c => c.branch === 1 && c.start_frame === 21 && c.prompt.includes('night falls')"))


def test_what_flashes_is_paused_until_the_viewer_says_so(visit: Visit, port: int) -> None:
    page = begun(visit, port, prompt="a strobe lamp")
    page.get_by_text("flashes quickly").wait_for()
    assert not page.evaluate("window.longtake.player.position().playing")
    page.get_by_role("button", name="Play on").click()
    wait(page, "window.drawn.length > 40")
    expect(page.get_by_text("flashes quickly")).to_have_count(0)


def test_a_reload_comes_back_to_the_take(visit: Visit, port: int) -> None:
    page = begun(visit, port)
    wait(page, "window.drawn.length > 30")
    page.reload()
    page.evaluate(WATCH)
    wait(page, "window.drawn.length > 30")
    frames = drawn(page)
    assert frames[-20:] == list(range(frames[-20], frames[-20] + 20))  # once it has caught up with what is live
    assert frames == sorted(set(frames))


def test_without_https_the_frames_come_as_pictures_and_the_page_says_why(visit: Visit, port: int) -> None:
    """An address that is neither https nor localhost has no WebCodecs, no camera and no clipboard."""
    page = begun(visit, port, host=FAR)
    assert page.evaluate("!isSecureContext && !('VideoDecoder' in window) && !navigator.mediaDevices")
    expect(page.get_by_text("Sharper video and the webcam need https")).to_be_visible()
    wait(page, "window.drawn.length > 30")
    frames = drawn(page)
    assert frames == list(range(len(frames)))
    page.evaluate("window.longtake.player.pause()")
    assert shown(page) == page.evaluate("window.longtake.player.position().frame")


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_serious_stands_in_the_way_of_anyone(visit: Visit, port: int, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    size = {"width": width, "height": 844}
    page = begun(visit, port, viewport=size, color_scheme=scheme, bypass_csp=True)
    page.evaluate("window.longtake.player.pause()")
    found = [v for v in axe.Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_all_of_it_by_keyboard(visit: Visit, port: int) -> None:
    page = visit(f"http://127.0.0.1:{port}/")
    page.evaluate(WATCH)
    page.keyboard.press("/")
    page.keyboard.type("a red boat on the sea")
    page.keyboard.press("Enter")
    wait(page, "window.drawn.length > 30")
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    wait(page, "!window.longtake.player.position().playing")
    before = page.evaluate("window.longtake.player.position().frame")
    page.keyboard.press("ArrowLeft")
    wait(page, "frame => window.longtake.player.position().frame === frame", before - 1)
    page.keyboard.press("Home")
    wait(page, "window.longtake.player.position().frame === 0")
    page.keyboard.press("End")
    wait(page, "window.longtake.player.position().live")


def test_a_picture_that_is_dropped_begins_to_move(visit: Visit, port: int, tmp_path: Any) -> None:
    page = visit(f"http://127.0.0.1:{port}/")
    page.evaluate(WATCH)
    buffer = io.BytesIO()
    Image.fromarray(np.full((96, 160, 3), 120, np.uint8)).save(buffer, "PNG")
    (tmp_path / "grey.png").write_bytes(buffer.getvalue())
    page.evaluate(
        """async bytes => {
          const file = new File([new Uint8Array(bytes)], 'grey.png', {type: 'image/png'});
          const data = new DataTransfer();
          data.items.add(file);
          for (const kind of ['dragenter', 'dragover', 'drop'])
            document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        list(buffer.getvalue()),
    )
    box = page.get_by_role("textbox").first
    box.fill("it begins to rain")
    box.press("Enter")
    wait(page, "window.drawn.length > 5")


def test_without_https_the_page_offers_no_camera(visit: Visit, port: int) -> None:
    page = visit(f"http://{FAR}:{port}/")
    page.get_by_role("radio", name="Webcam").click()
    expect(page.get_by_text("only over https or on localhost")).to_be_visible()


def test_a_camera_is_painted_over_while_it_runs(visit: Visit, port: int) -> None:
    page = visit(f"http://127.0.0.1:{port}/", permissions=["camera"])
    page.evaluate(WATCH)
    page.get_by_role("radio", name="Webcam").click()
    page.get_by_role("button", name="Turn the camera on").click()
    page.locator(".preview video").wait_for()
    box = page.get_by_role("textbox").first
    box.fill("a red boat on the sea")
    box.press("Enter")
    wait(page, "window.drawn.length > 40")
    frames = drawn(page)
    assert frames == list(range(len(frames)))
    newest = "fetch('/api/takes').then(r => r.json()).then(g => fetch('/api/takes/' + g.takes[0].id))"
    assert page.evaluate(f"{newest}.then(r => r.json()).then(t => t.opened.source)") == "frames"
    preview = page.locator("section.panel canvas").first
    expect(preview).to_be_visible()
    picker = page.get_by_label("Camera", exact=True)
    first_device, second_device = (option.get_attribute("value") for option in picker.locator("option").all())
    expect(picker).to_have_value(first_device)
    picker.select_option(second_device)
    before = len(drawn(page))
    wait(page, "n => window.drawn.length > n", before + 24)  # the take goes on with the other one
    expect(picker).to_have_value(second_device)
    page.get_by_label("Freeze the picture").check()
    wait(page, "n => window.drawn.length > n", len(drawn(page)) + 24)  # a still picture is painted over as well


def test_the_list_of_routes_can_be_read_without_a_network(visit: Visit, port: int) -> None:
    page = visit(f"http://127.0.0.1:{port}/docs")
    wait(page, "document.querySelectorAll('details').length > 15")
    expect(page.get_by_role("heading", name="Live takes")).to_be_visible()
    expect(page.locator("details", has_text="/v1/videos/{video_id}/remix")).to_be_visible()
    row = page.locator("details", has_text="POST/api/takes").first
    row.locator("summary").click()
    expect(row).to_contain_text("maxLength")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
