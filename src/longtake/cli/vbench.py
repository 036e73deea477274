"""`longtake vbench`: generates videos under the names that VBench expects, and computes its total score."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.directing import Device
from longtake.core.errors import InputError

vbench = typer.Typer(help="Make the videos that VBench looks at, and add up what it found.", no_args_is_help=True)


@vbench.command()
def make(
    prompts: Annotated[Path, typer.Argument(help="VBench_full_info.json, or text with a prompt a line.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the videos go; those that are there are kept.")],
    extended: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Longer prompts for the model, a line for each of the prompts.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="A model or its folder.")] = "tiny-world",
    teacher: Annotated[bool, typer.Option("--teacher", help="Its teacher.")] = False,
    seconds: Annotated[float, typer.Option(metavar="S", help="Of each video.")] = 5.0,
    device: Device = None,
) -> None:
    """Make the videos, five a prompt (25 for temporal flickering); run it again to go on where it stopped."""
    from longtake.cli.progress import Bars
    from longtake.core.limits import checked_text
    from longtake.evals.vbench import videos_of
    from longtake.media.animations import open_writer
    from longtake.sample.cues import TimedPrompt
    from longtake.sample.model import open_model
    from longtake.studio.generate import generate

    if not 0 < seconds <= 600:
        raise InputError(f"--seconds must lie between 0 and 600, got {seconds:g}")
    videos = videos_of(prompts, extended)
    opened = open_model(model, teacher=teacher, device=device)
    with Bars() as bars:
        for num, video in enumerate(videos, 1):
            path = out / video.name
            if not path.exists():
                cues = (TimedPrompt(at_s=0.0, prompt=checked_text("a prompt", video.prompt)),)
                with open_writer(path, fps=opened.fps, size=opened.size) as writer:
                    for chunk in generate(opened, cues, seconds=seconds, seed=video.seed):
                        writer.push(chunk.frames)
            bars.update("videos", num, len(videos), {})
    sys.stdout.write(f"{len(videos)} videos in {out}\n")


@vbench.command()
def score(
    results: Annotated[Path, typer.Argument(help="The folder of *_eval_results.json that VBench has written.")],
) -> None:
    """Scale and weigh the dimensions as VBench does: quality, semantic, total, as JSON. Those missing are named."""
    from longtake.evals.vbench import results_in
    from longtake.evals.vbench import score as score_of

    values = results_in(results)
    sys.stdout.write(json.dumps({**asdict(score_of(values)), "dimensions": values}) + "\n")
