"""`longtake bench`: metrics that add up, a picture, and honest refusals."""

import json
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli.main import main
from longtake.core.errors import MediaError
from longtake.media.charts import chunk_chart
from tests.tiny import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_a_model_is_timed_with_everything_in_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    words = ["bench", "--model", str(folder), "--chunks", "4", "--cues", "2", "--steps", "1", "--window", "6"]
    assert main([*words, "--out", str(out), "--device", "cpu"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads(out.read_text())
    assert (metrics["frames"], metrics["steps"], metrics["window"]) == (9 + 3 * 12, 1, 6)
    assert set(metrics["share"]) == {"text", "memory", "denoise", "decode", "H.264", "other"}
    assert 0.5 < sum(metrics["share"].values()) <= 1.05
    assert metrics["cold_start_s"] > metrics["first_frames_s"] > 0
    assert metrics["chunk_p95_s"] >= metrics["chunk_p50_s"] > 0
    assert metrics["cue_latency"]["cues"] == 2
    assert metrics["peak_mib"] > 50
    with Image.open(out.with_suffix(".png")) as chart:
        assert chart.size[0] == 960
        assert len(chart.getcolors(1 << 24) or ()) > 6


def test_a_preset_is_timed_without_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--model", "tiny-world", "--random-weights", "--chunks", "2", "--cues", "0", "--no-cold"]
    assert main([*words, "--size", "32x32", "--device", "cpu"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["weights"].startswith("random")
    assert metrics["cold_start_s"] is None
    assert metrics["cue_latency"] is None


def test_what_cannot_be_timed_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--chunks", "1"], "at least 2"),
        (["--codec", "light"], "for --random-weights"),
        (["--window", "5", "--no-cold"], "not a whole number of chunks"),
        (["--model", "nowhere"], 'no model "nowhere"'),
    ):
        assert main(["bench", "--model", str(folder), "--device", "cpu", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_chart_has_a_column_a_chunk_and_the_line_of_real_time() -> None:
    chunks = [{"denoise": 0.2, "decode": 0.1}, {"denoise": 0.4, "decode": 0.1}]
    chart = chunk_chart(chunks, 0.75, "a model", ["a note"])
    colours = {colour for _, colour in chart.getcolors(1 << 24) or ()}
    assert {(242, 184, 92), (120, 170, 235)} <= colours
    with pytest.raises(MediaError, match="at least one chunk"):
        chunk_chart([], 0.75, "a model", [])
