"""All recipes on one teacher, in one table: trained on what a finished run has, then evaluated together.

python -m benchmarks.recipes RUN [--out runs/compared] [--recipe NAME ...] [--prompts 24] [--max-minutes M]

RUN is a finished run of `longtake train tiny-world`: its codec, latents and teacher are used by all, its ODE pairs and
initialisation by those that want the same. Each recipe has a folder in OUT and goes on where it stopped; when all are
done, OUT/report.html has the table, with the teacher and the rendered truth, and OUT/results.json the figures.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from longtake.cli.main import main as longtake
from longtake.cli.progress import Bars
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.latents import STAGE as LATENTS
from longtake.train.ode_init import STAGE as ODE_INIT
from longtake.train.ode_pairs import STAGE as ODE_PAIRS
from longtake.train.run import Recipe, load_recipe, run_recipe
from longtake.train.teacher import STAGE as TEACHER
from longtake.weights.checkpoint import link_files

BASE = "tiny-world"
RECIPES = (
    "self-forcing",
    "causvid",
    "causal-forcing",
    *(f"recipes/ablations/{name}.py" for name in ("ode_only", "no_init", "causal_teacher", "two_steps", "one_step")),
)


def shared(recipe: Recipe, base: Recipe) -> list[str]:
    """The stages that a recipe has in common with the finished run."""
    found = [CODEC, LATENTS, TEACHER]
    if (recipe.preset, recipe.ode_pairs) == (base.preset, base.ode_pairs):
        found.append(ODE_PAIRS)
        if recipe.ode_init is not None and asdict(recipe.ode_init) == asdict(base.ode_init):  # type: ignore[arg-type]
            found.append(ODE_INIT)
    return found


def main() -> None:
    """Train what is missing, then ask all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/compared"))
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--max-minutes", type=float)
    options = parser.parse_args()
    base, models = load_recipe(BASE), []
    for name in options.recipe or RECIPES:
        recipe, folder = load_recipe(name), options.out / Path(name).stem.replace("-", "_")
        for stage in shared(recipe, base):
            (folder / stage).mkdir(parents=True, exist_ok=True)
            files = [path for path in (options.run / stage).iterdir() if path.suffix in (".safetensors", ".json")]
            link_files(files, folder / stage)
        with Bars() as bars:
            if not run_recipe(name, out=folder, progress=bars.update, max_minutes=options.max_minutes):
                sys.exit(f"stopped at the time limit; run the same command to go on: {folder}")
        models += ["--model", str(folder / "model")]
    out = ["--out", str(options.out), "--prompts", str(options.prompts)]
    sys.exit(longtake(["evaluate", BASE, *models, "--teacher", *out]))


if __name__ == "__main__":
    main()
