"""All recipes on one teacher, in one table: students of a finished model's teacher, evaluated together.

python -m benchmarks.recipes [--base tiny-world] [--out runs/compared] [--recipe NAME ...] [--prompts 24]
    [--max-minutes M]

Codec and teacher are the model's; the clips are made once, and ODE pairs and initialisation once for all that want the
same. Each recipe has a folder in OUT and goes on where it stopped; when all are done, OUT/report.html has the table,
with the teacher and the rendered truth, and OUT/results.json the metrics.
"""

import argparse
import sys
from pathlib import Path

from longtake.cli.main import main as longtake
from longtake.cli.progress import Bars
from longtake.train.ar_teacher import STAGE as AR_TEACHER
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.consistency import STAGE as CONSISTENCY
from longtake.train.dmd import STAGE as DMD
from longtake.train.latents import STAGE as LATENTS
from longtake.train.ode_init import STAGE as ODE_INIT
from longtake.train.ode_pairs import STAGE as ODE_PAIRS
from longtake.train.run import Recipe, load_recipe, run_recipe
from longtake.train.teacher import STAGE as TEACHER
from longtake.weights.checkpoint import link_files

ABLATIONS = (
    *("ode_only", "two_steps", "one_step", "causal_teacher", "no_init"),
    *("short_window", "sink", "chunk_one"),
)
RECIPES = (
    *("self-forcing", "causvid", "causal-forcing", "long-tuning"),
    *(f"ablations/{name}" for name in ABLATIONS),
)


READS = {ODE_PAIRS: {LATENTS}, ODE_INIT: {ODE_PAIRS}, AR_TEACHER: {LATENTS}, CONSISTENCY: {LATENTS, AR_TEACHER}}


def reads(recipe: Recipe, stage: str) -> set[str]:
    """The stages besides codec and teacher that one is made of."""
    if stage == DMD and recipe.dmd is not None:
        return {LATENTS, recipe.dmd.start, recipe.dmd.score}
    return READS.get(stage, set())


def sees(recipe: Recipe, stage: str) -> object:
    """What a stage depends on besides its settings and the stages that it reads."""
    if stage == LATENTS:
        return recipe.world
    if stage == ODE_PAIRS:
        return recipe.preset.student
    return recipe.preset


def shared(recipe: Recipe, other: Recipe) -> list[str]:
    """The stages that two recipes, which begin with the same model, have in common."""
    found = [CODEC, TEACHER]
    for name in (LATENTS, ODE_PAIRS, ODE_INIT, AR_TEACHER, CONSISTENCY, DMD):
        mine, alike = getattr(recipe, name), sees(recipe, name) == sees(other, name)
        if mine is not None and mine == getattr(other, name) and alike and reads(recipe, name) <= {*found}:
            found.append(name)
    return found


def link_stage(made: Path, folder: Path) -> None:
    """Use a finished stage of another run: what it made, not what that run was told, which may differ elsewhere."""
    if not (made / "provenance.json").exists() or folder.exists():
        return
    folder.mkdir(parents=True)
    link_files([*made.glob("*.safetensors"), made / "provenance.json"], folder)


def main() -> None:
    """Train what is missing, then ask all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny-world")
    parser.add_argument("--out", type=Path, default=Path("runs/compared"))
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--max-minutes", type=float)
    options = parser.parse_args()
    done: dict[Path, Recipe] = {}
    names = options.recipe or RECIPES
    for name in names:
        recipe, folder = load_recipe(name).on_model(options.base), options.out / Path(name).stem.replace("-", "_")
        for other, theirs in done.items():
            for stage in shared(recipe, theirs):
                link_stage(other / stage, folder / stage)
        with Bars() as bars:
            if not run_recipe(recipe, out=folder, progress=bars.update, max_minutes=options.max_minutes):
                sys.exit(f"stopped at the time limit; run the same command to go on: {folder}")
        done[folder] = recipe
    models = [word for folder in done for word in ("--model", str(folder / "model"))]
    out = ["--out", str(options.out), "--prompts", str(options.prompts), "--resume"]
    sys.exit(longtake(["evaluate", names[0], *models, "--teacher", "--steps", "2", "--steps", "1", *out]))


if __name__ == "__main__":
    main()
