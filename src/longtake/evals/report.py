"""Files of an evaluation: `results.json` with all metrics, and `report.html` with tables, plots and videos."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from longtake.core.errors import InputError
from longtake.core.shapes import PictureSize
from longtake.evals.evaluate import Drift, EvaluationRow, Example
from longtake.evals.rows import METRICS, SHOWN, told
from longtake.evals.statistics import Metric, difference
from longtake.media.animations import open_writer
from longtake.media.sheets import Row, contact_sheet, save_sheet

RESULTS = "results.json"
REPORT = "report.html"
GATED = {  # metrics that `regressions` compares; 1: higher is better, -1: lower is better
    "adherence": 1,
    "all of the prompt": 1,
    "change followed": 1,
    "distance to the truth": -1,
    "restyle: adherence": 1,
}
FILMED = 3  # number of examples per row that are written as videos
HUES = ("#f2b866", "#7cc3d6", "#8fca8a", "#e39bc4")

STYLE = """
:root { color-scheme: dark light; --bg: #0f1013; --text: #eceae5; --soft: #a6a8af; --line: #2b2f36;
  --good: #7fd39a; --bad: #ff8f80 }
@media (prefers-color-scheme: light) {
  :root { --bg: #f5f3ef; --text: #1f2023; --soft: #5d5f66; --line: #dcd7cd; --good: #1f7a44; --bad: #b3261e }
}
body { background: var(--bg); color: var(--text); font: 15px/1.5 system-ui, sans-serif; max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2.5rem }
p, td small, figcaption { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; white-space: nowrap }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line) }
th:first-child { text-align: left; font-weight: 400 }
img, video { max-width: 100%; border-radius: 6px }
.films { display: flex; flex-wrap: wrap; gap: 1rem }
metric { margin: 0; width: 20rem }
.right { color: var(--good) }
.wrong { color: var(--bad) }
.clear { color: #d99a3d }
"""


def write_report(
    rows: Sequence[EvaluationRow], accuracy: Mapping[str, float], about: Mapping[str, object], folder: Path
) -> Path:
    """Write results, page, sheets and videos into a folder, and return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "about": dict(about),
        "judge_accuracy": dict(accuracy),
        "rows": [told(row) for row in rows],
    }
    (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    shown = [part for num, row in enumerate(rows) for part in _examples(row, num, float(str(about["fps"])), folder)]
    page = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>longtake: {_text(about['model'])} evaluated</title><style>{STYLE}</style>",
        f"<h1>{_text(about['model'])}</h1><p>{_text(', '.join(f'{k}: {v}' for k, v in about.items()))}</p>",
        "<h2>The judge</h2><p>Right on held-out renders: ",
        f"{_text(', '.join(f'{task} {share:.1%}' for task, share in accuracy.items()))}.</p>",
        "<h2>Metrics</h2><p>Means with 95 % bootstrap intervals over prompts; below, how far a model is from the ",
        "first one, prompt by prompt: in colour where that is no chance.</p>",
        f"<div class=wide>{_table(rows)}</div>",
        *(f"<h2>Drift: {_text(row.name)}</h2>{_plot(row.drift)}" for row in rows if row.drift is not None),
        *shown,
    ]
    path = folder / REPORT
    path.write_text("\n".join(page) + "\n", "utf-8")
    return path


def earlier_results(path: Path, judge: str) -> dict[str, dict[str, Metric]]:
    """Metrics of an earlier `results.json`, by row.

    Raises:
        InputError: the file cannot be read, or its metrics are from another judge, which makes them incomparable.
    """
    try:
        results = json.loads(path.read_text("utf-8"))
        by, rows = results["about"]["judge"], results["rows"]
        found = {row["name"]: METRICS.validate_python(row["metrics"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no results of an evaluation: {error}") from error
    if by != judge:
        raise InputError(f"{path} was seen by another judge ({by[:16]}, now {judge[:16]}); give that one with --judge")
    return found


def regressions(rows: Sequence[EvaluationRow], earlier: Mapping[str, Mapping[str, Metric]]) -> list[str]:
    """Descriptions of metrics that are worse than in `earlier_results`, with intervals that do not overlap."""
    worse = []
    for row in rows:
        for name, sign in GATED.items():
            if row.name not in earlier or name not in earlier[row.name] or name not in row.metrics:
                continue
            now, before = row.metrics[name], earlier[row.name][name]
            best = now.high if sign > 0 else -now.low
            if best < sign * (before.low if sign > 0 else before.high):
                worse.append(f"{row.name}: {name} {now} was {before}")
    return worse


def _table(rows: Sequence[EvaluationRow]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    base = rows[1].values if len(rows) > 1 else {}
    head = "".join(f"<th>{_text(row.name)}</th>" for row in rows)
    body = "".join(
        f"<tr><th>{_text(name)}</th>"
        + "".join(f"<td>{_cell(row.metrics.get(name))}{_from_base(row, base, name)}</td>" for row in rows)
        + "</tr>"
        for name in names
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _cell(value: Metric | None) -> str:
    if value is None:
        return ""
    between = "" if value.low == value.high else f" <small>{value.low:.3g} to {value.high:.3g}</small>"
    return f"{value.value:.3g}{between}"


def _from_base(row: EvaluationRow, base: Mapping[str, Sequence[float]], name: str) -> str:
    """Paired difference of a row from the first model, as HTML; empty if either has no values of single prompts."""
    if row.values is base or name not in row.values or name not in base:
        return ""
    apart = difference(row.values[name], base[name])
    clear = " class=clear" if apart.low > 0 or apart.high < 0 else ""
    return f"<br><small{clear}>{apart.value:+.3g}, {apart.low:+.3g} to {apart.high:+.3g}</small>"


def _plot(drift: Drift) -> str:
    """SVG plot of the metrics of a take's parts relative to the first, and of the adherence to subject and place."""
    lines = {**drift.ratios, "subject and place": drift.adherence}
    width, height, left, bottom = 720, 240, 40, 24
    top_value = max(1.5, *(max(values) for values in lines.values()))
    last_s = max(drift.at_s[-1], 1e-9)

    def place(at_s: float, value: float) -> str:
        return f"{left + (width - left) * at_s / last_s:.1f},{(height - bottom) * (1 - value / top_value):.1f}"

    parts = [
        f"<svg viewBox='0 0 {width} {height + 24}' role=img aria-label='drift' width='100%' style='max-width:48rem'>"
    ]
    one, one_end = place(0, 1).split(","), place(last_s, 1).split(",")
    parts.append(f"<path d='M{one[0]} {one[1]}H{one_end[0]}' stroke='currentColor' stroke-opacity='.3'/>")
    parts.append(f"<text x='0' y='{one[1]}' fill='currentColor' font-size='12'>1</text>")
    hues = (*HUES, "currentColor")
    for num, (name, values) in enumerate(lines.items()):
        points = " ".join(place(at_s, value) for at_s, value in zip(drift.at_s, values, strict=True))
        hue = hues[num % len(hues)]
        parts.append(f"<polyline points='{points}' fill=none stroke='{hue}' stroke-width='2'/>")
        parts.append(f"<text x='{left + num * 130}' y='{height + 16}' fill='{hue}' font-size='13'>{_text(name)}</text>")
    parts.append(
        f"<text x='{width}' y='{height - 6}' text-anchor=end fill='currentColor' font-size='12'>{last_s:g} s</text>"
    )
    return "".join([*parts, "</svg>"])


def _examples(row: EvaluationRow, num: int, fps: float, folder: Path) -> list[str]:
    """Write a sheet of a row's first takes and some of them as videos, and return the HTML that shows them."""
    if not row.examples:
        return []
    few = row.examples[:SHOWN]
    sheet = folder / f"row-{num}.png"
    save_sheet(contact_sheet([Row(pictures=e.clip, caption=e.prompt, label=_wrong(e)) for e in few], columns=7), sheet)
    films = []
    for i, example in enumerate(few[:FILMED]):
        path = folder / f"row-{num}-{i}.mp4"
        height, width = example.clip.shape[1:3]
        with open_writer(path, fps=fps, size=PictureSize(height=height, width=width)) as writer:
            writer.push(example.clip)
        verdicts = {example.answers[task]: example.answers[task] == wanted for task, wanted in example.expected.items()}
        said = ", ".join(
            f"<span class={'right' if right else 'wrong'}>{_text(answer)}</span>" for answer, right in verdicts.items()
        )
        films.append(
            f"<metric><video src='{path.name}' controls loop muted preload=metadata></video>"
            f"<figcaption>{_text(example.prompt)}<br>{said}</figcaption></metric>"
        )
    return [
        f"<h2>{_text(row.name)}</h2><div class=films>{''.join(films)}</div>",
        f"<p><img src='{sheet.name}' alt='{_text(row.name)}: one prompt a row, time to the right'></p>",
    ]


def _wrong(example: Example) -> str:
    missed = [task for task, wanted in example.expected.items() if example.answers[task] != wanted]
    return f"not seen: {', '.join(missed)}" if missed else "all seen"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
