"""An evaluation from end to end: a model that knows nothing, and one that shows the truth."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from longtake.cli.main import main
from longtake.core.errors import InputError
from longtake.evals import evaluate
from longtake.evals.evaluate import EvaluationPlan, EvaluationRow, model_row, truth_row
from longtake.evals.judge import Judge, judge_for
from longtake.evals.prompts import asked_of
from longtake.evals.report import earlier_results, regressions, write_report
from longtake.evals.rows import read_row, write_row
from longtake.evals.statistics import Metric
from longtake.sample.cues import TimedPrompt
from longtake.sample.model import Model, open_model
from longtake.studio.controller import Chunk
from longtake.train.run import load_recipe
from longtake.worlds.render import render
from tests.tiny import PRESET, write_model

WORLD = load_recipe("smoke").world
READS_MORE = replace(PRESET, dit=replace(PRESET.dit, text_len=48))
PLAN = EvaluationPlan(
    prompts=3, seeds=2, spread_prompts=1, switches=1, still=1, kept=1, kept_s=2.0, long_takes=1, long_s=10.0
)
ABOUT = {"model": "tiny <b>", "fps": 16.0, "judge": "5f"}


def quiet(*_: object) -> None:
    """Nobody looks at the progress."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return judge_for(
        WORLD, tmp_path_factory.mktemp("judge") / "judge.safetensors", quiet, num_clips=60, steps=80, batch=8
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(str(write_model(tmp_path_factory.mktemp("model") / "m", preset=READS_MORE)), device="cpu")


@pytest.fixture(scope="module")
def rows(judge: Judge, model: Model) -> list[EvaluationRow]:
    truth = truth_row(model, WORLD, judge, PLAN, quiet)
    return [truth, model_row("tiny", model, WORLD, judge, PLAN, truth, quiet)]


def test_a_model_gets_every_figure(rows: list[EvaluationRow]) -> None:
    truth, tiny = rows
    coded = {name for name in truth.metrics if name.startswith("codec: ")}  # of the codec, which is asked once
    assert len(coded) == 5
    assert set(truth.metrics) - coded < set(tiny.metrics)
    assert all(truth.metrics[name].value > 0 for name in coded if "PSNR" in name or "sharpness" in name)
    assert tiny.metrics["still: change, levels"].value > 0
    assert 0 <= tiny.metrics["subject kept"].value <= 1
    assert truth.metrics["distance to the truth"].value == pytest.approx(0, abs=1e-6)
    assert tiny.metrics["distance to the truth"].value > 0.01
    assert 0 <= tiny.metrics["adherence"].low <= tiny.metrics["adherence"].value <= tiny.metrics["adherence"].high <= 1
    assert tiny.metrics["frames/s"].value > 0
    assert tiny.metrics["spread across seeds"].value > 0
    assert tiny.drift is not None
    assert tiny.drift.at_s == [0.0, 5.0]
    assert all(values[0] == 1 for values in tiny.drift.ratios.values())
    largest = max(abs(values[1] - 1) for values in tiny.drift.ratios.values())
    assert tiny.metrics["drift a second, over 10 s"].value == pytest.approx(largest / 5)
    assert "drift a second, over 30 s" not in tiny.metrics


def test_who_shows_the_truth_is_believed(judge: Judge, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {one.prompt: one for one in asked_of(WORLD, 3)}

    def shown(_: Model, cues: tuple[TimedPrompt, ...], *, seconds: float, seed: int) -> Iterator[Chunk]:
        one = asked.get(cues[-1].prompt) or next(iter(asked.values()))
        num = 1 + 4 * round(seconds * 4)
        pictures = render([one.scene.lasting(num)])[0]
        yield Chunk(index=0, start_s=0.0, prompt="", cue=None, frames=pictures, timings={"seed": seed})

    monkeypatch.setattr(evaluate, "generate", shown)
    truth = truth_row(model, WORLD, judge, PLAN, quiet)
    believed = model_row("truth", model, WORLD, judge, PLAN, truth, quiet)
    assert believed.metrics["adherence: place"].value > 0.6  # guessing gives 1/12; this judge was trained for 80 steps
    assert believed.metrics["spread across seeds"].value == pytest.approx(0, abs=1e-4)


def test_the_report_has_pictures_films_and_a_table(rows: list[EvaluationRow], tmp_path: Path) -> None:
    page = write_report(rows, {"place": 0.9}, ABOUT, tmp_path / "report")
    text = page.read_text()
    assert "place 90.0%" in text
    assert "tiny &lt;b&gt;" in text
    assert text.count("<video") == 6
    for name in ("row-0.png", "row-1.png", "row-0-0.mp4", "row-1-2.mp4"):
        assert name in text
        assert (tmp_path / "report" / name).stat().st_size > 1000
    assert "<svg" in text
    brighter = {name: [value + 0.1 for value in each] for name, each in rows[1].values.items()}
    third = replace(rows[1], name="brighter", values=brighter)
    assert "<small class=clear>+0.1, +0.1 to +0.1" in write_report([*rows, third], {}, ABOUT, tmp_path).read_text()
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == [row.name for row in rows]


def test_a_row_comes_back_as_it_was(rows: list[EvaluationRow], tmp_path: Path) -> None:
    for row in rows:
        write_row(tmp_path / "row.safetensors", row)
        again = read_row(tmp_path / "row.safetensors")
        assert (again.name, again.metrics, again.drift) == (row.name, row.metrics, row.drift)
        assert again.values == row.values
        assert [one.prompt for one in again.examples] == [one.prompt for one in row.examples[:8]]
        assert all(a.clip.equal(b.clip) for a, b in zip(again.examples, row.examples, strict=False))
        assert again.features is not None
        assert row.features is not None
        assert again.features.equal(row.features)


def test_the_gate_sees_what_became_worse_and_only_that(rows: list[EvaluationRow], tmp_path: Path) -> None:
    write_report(rows, {}, ABOUT, tmp_path)
    earlier = earlier_results(tmp_path / "results.json", str(ABOUT["judge"]))
    assert regressions(rows, earlier) == []
    worse = Metric(value=-0.2, low=-0.3, high=-0.1, num=3)
    fallen = [EvaluationRow(name=rows[1].name, metrics={**rows[1].metrics, "adherence": worse, "flicker": worse})]
    assert len(regressions(fallen, earlier)) == 1
    far = Metric(value=1e6, low=1e6, high=1e6, num=3)
    assert regressions([EvaluationRow(name="tiny", metrics={"distance to the truth": far})], earlier)
    with pytest.raises(InputError, match="holds no results"):
        earlier_results(tmp_path / "row-0.png", "")
    with pytest.raises(InputError, match=r"was seen by another judge .* give that one with --judge"):
        earlier_results(tmp_path / "results.json", "another")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = str(write_model(tmp_path / "mine" / "model", preset=READS_MORE)), tmp_path / "out"
    judge_for(WORLD, out / "judge.safetensors", quiet, num_clips=20, steps=2, batch=2)
    words = ["evaluate", "smoke", "--model", folder, "--prompts", "2", "--seconds", "10", "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == ["rendered truth, through the codec", "mine"]
    assert (out / "report.html").exists()
    rows = sorted((out / "rows").iterdir())
    assert len(rows) == 2
    assert main([*words, "--device", "cpu", "--resume", "--steps", "1"]) == 0  # only the new row is made
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert again[:2] == lines  # speed included, so they are those
    assert again[2]["name"] == "mine, 1 step"
    assert len(list((out / "rows").iterdir())) == 3
    rows[0].write_bytes(b"nothing")
    rows[1].write_bytes(b"nothing")
    assert main([*words, "--device", "cpu", "--resume"]) == 2
    assert "is damaged" in capsys.readouterr().err
    doctored = json.loads((out / "results.json").read_text())
    doctored["rows"][1]["metrics"]["distance to the truth"] |= {"value": -1, "low": -1, "high": -1}
    (tmp_path / "old.json").write_text(json.dumps(doctored))
    assert main([*words, "--device", "cpu", "--against", str(tmp_path / "old.json")]) == 1
    assert "worse: " in capsys.readouterr().err
    assert all(len(row.read_bytes()) > 1000 for row in rows)  # they were made anew
    assert main([*words, "--model", folder]) == 2
    assert "both be called mine" in capsys.readouterr().err
    assert main(["evaluate", "--prompts", "1"]) == 2
    assert main(["evaluate", "--seconds", "1"]) == 2
    assert main(["evaluate", "--steps", "0"]) == 2
