"""`longtake worlds` with the real renderer, a few small scenes."""

from pathlib import Path

import pytest
from PIL import Image

from longtake.cli.main import main


def test_preview_writes_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheets" / "worlds.png"
    assert main(["worlds", "preview", "--out", str(out), "--num", "2", "--look", "both"]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 6 * 160
        assert sheet.height > 4 * 96
    assert capsys.readouterr().out == f"{out} · 2 scenes\n"
    assert [path.name for path in out.parent.iterdir()] == ["worlds.png"]


def test_render_fills_a_folder_and_goes_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips"
    assert main(["worlds", "render", "--out", str(out), "--clips", "2"]) == 0
    assert "2 clips" in capsys.readouterr().out
    assert main(["worlds", "render", "--out", str(out), "--clips", "3"]) == 0
    assert "3 clips" in capsys.readouterr().out
    assert main(["worlds", "render", "--out", str(out), "--clips", "3", "--seed", "9"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
