"""VBench: the names of files, and a total that is the published one."""

import json
from pathlib import Path

import pytest

from longtake.cli.main import main
from longtake.core.errors import InputError
from longtake.evals.vbench import QUALITY, SEMANTIC, results_in, score, videos_of
from tests.tiny import write_model

CUSTOM = (  # the dimensions that take any videos
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
PUBLISHED = {  # CausVid on VBench-Long; "imaging_quality", "object_class" are what its 85.65 and 78.75 leave for them
    "subject_consistency": 0.9753,
    "background_consistency": 0.9719,
    "temporal_flickering": 0.9624,
    "motion_smoothness": 0.9805,
    "dynamic_degree": 0.9269,
    "aesthetic_quality": 0.6415,
    "imaging_quality": 0.6889,
    "object_class": 0.9299,
    "multiple_objects": 0.7215,
    "human_action": 0.9980,
    "color": 0.8017,
    "spatial_relationship": 0.6465,
    "scene": 0.5658,
    "appearance_style": 0.2427,
    "temporal_style": 0.2533,
    "overall_consistency": 0.2751,
}


def test_the_total_is_the_published_one() -> None:
    found = score(PUBLISHED)
    assert found.missing == []
    assert found.quality == pytest.approx(0.8565, abs=2e-4)
    assert found.semantic == pytest.approx(0.7875, abs=2e-4)
    assert found.total == pytest.approx(0.8427, abs=1e-4)


def test_what_was_not_measured_is_named_and_not_counted() -> None:
    found = score({name: PUBLISHED[name] for name in CUSTOM})
    assert (found.quality, found.semantic, found.total) == (None, None, None)
    assert set(found.missing) == (QUALITY.keys() | SEMANTIC.keys()) - set(CUSTOM)


def test_results_are_read_as_vbench_writes_them(tmp_path: Path) -> None:
    for name, value in PUBLISHED.items():
        per_video = [{"video_path": "a.mp4", "video_results": value}]
        (tmp_path / f"x_{name}_eval_results.json").write_text(json.dumps({name: [value, per_video]}))
    (tmp_path / "x_full_info.json").write_text(json.dumps([{"prompt_en": "a"}]))
    assert results_in(tmp_path) == PUBLISHED
    (tmp_path / "y.json").write_text(json.dumps({"beauty": [1.0, []]}))
    with pytest.raises(InputError, match="not dimensions of VBench: beauty"):
        results_in(tmp_path)
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(InputError, match=r"y\.json cannot be read"):
        results_in(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        results_in(tmp_path / "empty")


def test_files_have_the_names_that_vbench_looks_for(tmp_path: Path) -> None:
    info = tmp_path / "VBench_full_info.json"
    info.write_text(
        json.dumps(
            [
                {"prompt_en": "a dog", "dimension": ["subject_consistency"]},
                {"prompt_en": "a still lake", "dimension": ["temporal_flickering"]},
                {"prompt_en": "a dog", "dimension": ["object_class"]},
            ]
        )
    )
    videos = videos_of(info)
    assert [v.name for v in videos[:5]] == [f"a dog-{i}.mp4" for i in range(5)]
    assert [v.seed for v in videos[:5]] == list(range(5))
    assert len(videos) == 5 + 25
    text, longer = tmp_path / "all_dimension.txt", tmp_path / "longer.txt"
    text.write_text("a dog\n\na cat\n")
    longer.write_text("a brown dog on a lawn\na grey cat on a wall\n")
    assert [(v.name, v.prompt) for v in videos_of(text, longer)][5] == ("a cat-0.mp4", "a grey cat on a wall")
    longer.write_text("only one\n")
    with pytest.raises(InputError, match="has 1 prompts"):
        videos_of(text, longer)
    for bad in ("either/or", "x" * 300):
        text.write_text(bad)
        with pytest.raises(InputError, match="cannot be the name"):
            videos_of(text)
    with pytest.raises(InputError, match="holds no prompts"):
        videos_of(tmp_path / "none.json")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, prompts, out = write_model(tmp_path / "m"), tmp_path / "p.txt", tmp_path / "videos"
    prompts.write_text("a dog\n")
    words = ["vbench", "make", str(prompts), "--model", str(model), "--out", str(out), "--seconds", "0.5"]
    assert main([*words, "--device", "cpu"]) == 0
    made = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert set(made) == {f"a dog-{i}.mp4" for i in range(5)}
    (out / "a dog-3.mp4").unlink()
    assert main([*words, "--device", "cpu"]) == 0
    again = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"a dog-3.mp4"}
    capsys.readouterr()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "x_eval_results.json").write_text(json.dumps({k: [v, []] for k, v in PUBLISHED.items()}))
    assert main(["vbench", "score", str(tmp_path / "r")]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == pytest.approx(0.8427, abs=1e-4)
    assert main([*words, "--seconds", "0"]) == 2
