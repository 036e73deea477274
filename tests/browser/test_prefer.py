"""The page of blind pairs in a real browser: by keys alone, and saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import expect

from longtake.core.shapes import PictureSize
from longtake.evals.preferences import Ballot, pairs_of
from longtake.media.animations import open_writer
from longtake.serve.prefer import create_app
from tests.browser.conftest import wait
from tests.serve.serving import listening

pytestmark = pytest.mark.browser

SIZE = PictureSize(height=96, width=160)
PLAYING = "[...document.querySelectorAll('video')].every(v => v.readyState >= 3 && !v.paused && v.videoWidth === 160)"


@pytest.fixture
def ballot(tmp_path: Path) -> Ballot:
    for name, colour in (("ours", 200), ("theirs", 60)):
        for film in ("a red car-0.mp4", "a tiger walks-0.mp4", "a boat-0.mp4"):
            with open_writer(tmp_path / name / film, fps=16, size=SIZE) as writer:
                writer.push(torch.full((24, 96, 160, 3), colour, dtype=torch.uint8))
    return Ballot(pairs_of({name: tmp_path / name for name in ("ours", "theirs")}), tmp_path / "votes.jsonl")


@pytest.fixture
def page(ballot: Ballot, browser: Any, tmp_path: Path) -> Iterator[Any]:
    folders = {name: tmp_path / name for name in ("ours", "theirs")}
    with listening(create_app(ballot, folders)) as address:
        page = browser.new_page(viewport={"width": 1100, "height": 620})
        page.goto(address)
        yield page
        page.close()


def test_three_keys_answer_all_pairs(page: Any, ballot: Ballot) -> None:
    for number, (key, choice) in enumerate((("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowDown", "tie"))):
        wait(page, f"document.getElementById('count').textContent === '{number} of 3'")
        wait(page, PLAYING)
        page.keyboard.press(key)
        wait(page, f"document.getElementById('count').textContent === '{number + 1} of 3'")
        assert ballot.votes[-1].choice == choice
    expect(page.locator("#message")).to_contain_text("Thank you")
    expect(page.locator("#films")).to_be_hidden()
    page.reload()
    wait(page, "document.getElementById('message').textContent.includes('Thank you')")


def test_an_answer_that_is_not_saved_is_said(page: Any, ballot: Ballot) -> None:
    wait(page, PLAYING)
    ballot.path.mkdir()
    page.get_by_role("button", name="This one").first.click()
    wait(page, "document.getElementById('message').textContent.includes('was not saved')")
    ballot.path.rmdir()
    page.get_by_role("button", name="This one").first.click()
    wait(page, "document.getElementById('count').textContent === '1 of 3'")
    assert len(ballot.votes) == 1
