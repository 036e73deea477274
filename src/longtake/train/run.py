"""Training runs: all stages of a recipe in order, skipping those that are done."""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch

from longtake.core.configs import Preset
from longtake.core.errors import ConfigError, InputError, TrainingError
from longtake.core.tasks import LocalTasks, Tasks
from longtake.nets.text import MiniLMEncoder, TextEncoder
from longtake.train import (
    ar_teacher,
    codec_fit,
    consistency,
    decoder_tuning,
    dmd,
    latents,
    ode_init,
    ode_pairs,
    source_adapter,
    source_pairs,
    teacher,
    videos,
)
from longtake.train.ar_teacher import ArTeacherStage
from longtake.train.consistency import ConsistencyStage
from longtake.train.decoder_tuning import DecoderStage
from longtake.train.dmd import DmdStage
from longtake.train.export import export
from longtake.train.latents import LatentStage
from longtake.train.loop import Limits
from longtake.train.ode_init import OdeInitStage
from longtake.train.ode_pairs import OdePairStage
from longtake.train.ranks import ranks_of
from longtake.train.source_adapter import SourceAdapterStage
from longtake.train.source_pairs import SourcePairsStage
from longtake.train.stage import Context, Progress
from longtake.weights.checkpoint import weight_files
from longtake.weights.presets import model_folder, open_text_encoder, preset_named
from longtake.worlds.scenes import WorldConfig
from longtake.worlds.vocabulary import vocabulary_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: one configuration per stage; stages that `dmd` does not need may be left out.

    Without `dmd`, the student is the result of `ode_init` or `consistency`.
    """

    preset: Preset
    world: WorldConfig
    codec: codec_fit.CodecStage | codec_fit.BaseCodec
    latents: latents.LatentStage | videos.PreparedLatents
    teacher: teacher.TeacherStage
    openings: LatentStage | None = None  # many short clips besides, for the teacher's phases of such clips
    dmd: DmdStage | None = None
    tuning: DmdStage | None = None  # second distillation, of the distilled student
    ode_pairs: OdePairStage | None = None
    ode_init: OdeInitStage | None = None
    ar_teacher: ArTeacherStage | None = None
    consistency: ConsistencyStage | None = None
    source_pairs: SourcePairsStage | None = None
    source_adapter: SourceAdapterStage | None = None
    decoder: DecoderStage | None = None  # tuning of the decoder, last, on the student's latents

    def __post_init__(self) -> None:
        preset, world = self.preset, self.world
        longest = preset.clip_latent_frames
        if isinstance(self.latents, latents.LatentStage):
            longest = self.latents.latent_frames or world.latent_frames
            if longest % preset.stream.chunk or longest > world.latent_frames:
                raise ConfigError(
                    f"latents has {longest} latent frames; it must be a multiple of {preset.stream.chunk} and at most "
                    f"the {world.latent_frames} of a scene"
                )
            for what, mine, other in (
                ("chunk", world.chunk, preset.stream.chunk),
                ("size", world.size, preset.size),
                ("fps", world.fps, preset.fps),
            ):
                if mine != other:
                    raise ConfigError(f"the world's {what} is {mine}, the preset's {other}; they must be the same")
        if self.openings is not None and (self.openings.latent_frames or 0) not in range(preset.stream.chunk, longest):
            raise ConfigError(
                f"openings has {self.openings.latent_frames} latent frames; they are at least one chunk, "
                f"{preset.stream.chunk}, and shorter than the {longest} of latents"
            )
        lengths = {"a teacher phase": max(p.latent_frames for p in self.teacher.phases), **self._checked_end()}
        for what in ("ode_pairs", "ar_teacher", "consistency", "decoder"):
            if (stage := getattr(self, what)) is not None:
                lengths[what] = stage.latent_frames
        most = dict.fromkeys(lengths, longest)
        if (self.source_adapter is None) != (self.source_pairs is None):
            raise ConfigError("a recipe has both source_pairs and source_adapter, or neither")
        if self.source_adapter is not None and self.source_pairs is not None:
            lengths["source_adapter"], most["source_adapter"] = (
                self.source_adapter.latent_frames,
                self.source_pairs.latent_frames,
            )
        for what, length in lengths.items():
            if length % preset.stream.chunk or length > most[what]:
                raise ConfigError(
                    f"{what} has {length} latent frames; it must be a multiple of {preset.stream.chunk} and at most "
                    f"the {most[what]} of a clip"
                )

    def _checked_end(self) -> dict[str, int]:
        """Lengths of the last stages' rollouts, where the data's length limits them.

        Raises:
            ConfigError: a stage lacks one that it needs, or has an invalid length, or no stage makes a student.
        """
        last = self.dmd
        if last is None:
            if self.ode_init is None and self.consistency is None:
                raise ConfigError("a recipe without dmd, ode_init and consistency makes no student; give it one")
            if self.tuning is not None:
                raise ConfigError("tuning goes on from the distilled student, so the recipe needs dmd")
            return {}
        needed = {"ode_init": ("ode_pairs", "ode_init"), "consistency": ("ar_teacher", "consistency"), "teacher": ()}
        if last.start not in needed:
            raise ConfigError("dmd cannot begin with dmd; that is how tuning begins")
        for what in needed[last.start]:
            if getattr(self, what) is None:
                raise ConfigError(f"dmd begins with {last.start}, so the recipe needs {what}")
        if last.score == ar_teacher.STAGE and self.ar_teacher is None:
            raise ConfigError("dmd follows the autoregressive teacher, so the recipe needs ar_teacher")
        if self.tuning is not None and self.tuning.start != dmd.STAGE:
            raise ConfigError(f'tuning goes on from the distilled student: start="dmd", not "{self.tuning.start}"')
        stages = {"dmd": last} if self.tuning is None else {"dmd": last, "tuning": self.tuning}
        chunk = self.preset.stream.chunk
        for name, stage in stages.items():
            if not 0 < stage.latent_frames <= stage.rollout_frames or stage.latent_frames % chunk:
                raise ConfigError(f"{name} must score a whole number of chunks, at most its rollout")
            if stage.recache and stage.rollout_frames % chunk:
                raise ConfigError(f"the {name} rollout is {stage.rollout_frames} latent frames, no multiple of {chunk}")
        return {f"the {name} rollout": stage.rollout_frames for name, stage in stages.items() if not stage.recache}

    def stages(self) -> dict[str, Callable[[Context], bool]]:
        """Functions of the stages by name, in order; each returns False when a limit stopped it."""
        return {
            codec_fit.STAGE: lambda c: codec_fit.run(self.codec, self.world, c),
            latents.STAGE: self._latents,
            **self._openings(),
            teacher.STAGE: lambda c: teacher.run(self.teacher, c, openings=self.openings is not None),
            **self._starts(),
            **self._ends(),
        }

    @property
    def in_bf16(self) -> tuple[str, ...]:
        """Names of the stages that are configured to compute in bf16."""
        found = {name: getattr(self, name) for name in self.stages()}
        return tuple(name for name, stage in found.items() if getattr(getattr(stage, "loop", stage), "bf16", False))

    @property
    def student(self) -> str:
        """Name of the stage that produces the final student."""
        if self.dmd is not None:
            return dmd.STAGE if self.tuning is None else dmd.TUNING
        return ode_init.STAGE if self.consistency is None else consistency.STAGE

    def _openings(self) -> dict[str, Callable[[Context], bool]]:
        if (short := self.openings) is None:
            return {}
        name = latents.OPENINGS_STAGE
        return {name: lambda c: latents.run(short, self.world, c, name)}

    def _starts(self) -> dict[str, Callable[[Context], bool]]:
        """Stages that initialise the student."""
        found: dict[str, Callable[[Context], bool]] = {}
        if (pairs := self.ode_pairs) is not None:
            found[ode_pairs.STAGE] = lambda c: ode_pairs.run(pairs, c)
        if (init := self.ode_init) is not None:
            found[ode_init.STAGE] = lambda c: ode_init.run(init, c)
        if (forced := self.ar_teacher) is not None:
            found[ar_teacher.STAGE] = lambda c: ar_teacher.run(forced, c)
        if (agreeing := self.consistency) is not None:
            found[consistency.STAGE] = lambda c: consistency.run(agreeing, c)
        return found

    def _ends(self) -> dict[str, Callable[[Context], bool]]:
        """Stages from the student's distillation on."""
        found: dict[str, Callable[[Context], bool]] = {}
        if (distilling := self.dmd) is not None:
            found[dmd.STAGE] = lambda c: dmd.run(distilling, c)
        if (tuning := self.tuning) is not None:
            found[dmd.TUNING] = lambda c: dmd.run(tuning, c, dmd.TUNING)
        if (shown := self.source_pairs) is not None:
            found[source_pairs.STAGE] = lambda c: source_pairs.run(shown, self.world, c)
        if (adapter := self.source_adapter) is not None:
            found[source_adapter.STAGE] = lambda c: source_adapter.run(adapter, self.student, c)
        if (tuned := self.decoder) is not None and isinstance(made := self.latents, latents.LatentStage):
            found[decoder_tuning.STAGE] = lambda c: decoder_tuning.run(tuned, made, self.world, self.student, c)
        return found

    def _latents(self, context: Context) -> bool:
        if isinstance(self.latents, videos.PreparedLatents):
            return videos.run_latents(self.latents, context)
        return latents.run(self.latents, self.world, context)

    def on_model(self, model: str) -> "Recipe":
        """The recipe with the codec and the teacher of a finished model, both unchanged.

        Raises:
            WeightsError: there is no such model.
            ConfigError: the model has no teacher, or networks of another shape than the recipe's.
        """
        theirs, mine = preset_named(model), self.preset
        for what in ("dit", "codec"):
            if getattr(theirs, what) != getattr(mine, what):
                raise ConfigError(
                    f"{model}'s {what} is {getattr(theirs, what)}, the recipe's {getattr(mine, what)}; a recipe that "
                    "begins with a model has networks of its shape"
                )
        if not weight_files(model_folder(model), "teacher"):
            raise ConfigError(
                f"{model} has no teacher, so there is nothing to distil; train one, or name another model"
            )
        taken = replace(self.teacher.starting_from(model), lora_rank=None, loop=replace(self.teacher.loop, steps=0))
        return replace(self, codec=codec_fit.BaseCodec(model=model), teacher=taken, openings=None)

    def on_videos(self, folder: Path) -> "Recipe":
        """The recipe on prepared videos, starting from the teacher of the model that they were prepared for.

        Raises:
            InputError: the folder holds no prepared clips.
            WeightsError: the model is no longer available.
            ConfigError: the clips are too short for the recipe.
        """
        about = videos.about_of(folder)
        return replace(
            self,
            preset=preset_named(about.model),
            codec=codec_fit.BaseCodec(model=about.model),
            latents=videos.PreparedLatents(folder=str(folder)),
            teacher=self.teacher.starting_from(about.model),
            openings=None,
            source_pairs=None,  # videos have one look
            source_adapter=None,
            decoder=None,
        )


def packaged_recipes() -> dict[str, Path]:
    """Recipe files of the package by name; names in a subfolder begin with its name and a slash."""
    folder = Path(str(resources.files("longtake.recipes")))
    paths = [path for path in sorted(folder.rglob("*.py")) if path.stem != "__init__"]
    return {path.relative_to(folder).with_suffix("").as_posix().replace("_", "-"): path for path in paths}


def find_recipe(name: str) -> Path:
    """Path of the recipe file with a packaged name or a path.

    Raises:
        InputError: there is no such file.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = packaged_recipes()
    if (path := packaged.get(name.replace("_", "-"))) is not None:
        return path
    known = ", ".join(known for known in packaged if "/" not in known)
    raise InputError(f'no recipe "{name}": give a .py file with a function recipe(), or one of: {known}')


def load_recipe(name: str) -> Recipe:
    """Run a recipe file and return the result of its `recipe()`.

    Raises:
        InputError: there is no such file, it cannot be run, or it defines no recipe.
    """
    path = find_recipe(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; a recipe is a .py file with a function recipe()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        make = getattr(module, "recipe", None)
        made = make() if callable(make) else None
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be used as a recipe: {type(error).__name__}: {error}") from error
    if not isinstance(made, Recipe):
        raise InputError(f"{path} must define a function recipe() that returns a Recipe")
    return made


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Context in which denormal numbers are zero: averages decay into them, and a CPU is many times slower on them.

    It must be entered before torch starts its threads, which inherit the setting.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


# Stages that several ranks can train together; the others run in one process.
SHARED = (teacher.STAGE, ode_init.STAGE, ar_teacher.STAGE, consistency.STAGE, dmd.STAGE, dmd.TUNING)


@denormals_flushed()
def run_recipe(
    recipe: Recipe,
    *,
    out: Path,
    progress: Progress,
    stages: Sequence[str] = (),
    device: str = "cpu",
    max_minutes: float | None = None,
    tasks: Tasks | None = None,
) -> bool:
    """Run the unfinished stages of a recipe and export the model when all are done; return False if a limit stops it.

    Processes started by torchrun train together, each on its own device.

    Args:
        recipe: the recipe; see `load_recipe`, `Recipe.on_model`, `Recipe.on_videos`.
        out: folder of the run; the finished model is in `out/model`.
        progress: called with (stage, done, of, metrics).
        stages: names of the stages to run; (): all.
        device: "cpu", "cuda", "cuda:1".
        max_minutes: time after which the run stops at a checkpoint; the next call resumes it.
        tasks: where clips are rendered and encoded, and pairs made; None: on this machine.

    Raises:
        InputError: a stage is unknown, or the device is not there.
        TrainingError: a stage failed; earlier results stay.
    """
    unknown = sorted(set(stages) - recipe.stages().keys())
    if unknown:
        raise InputError(f"no stage {unknown[0]!r}; the stages are {', '.join(recipe.stages())}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device} was asked for, but this torch sees no CUDA device")
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32: fp32 range, ten bits of mantissa, several times the speed
    deadline = float("inf") if max_minutes is None else time.monotonic() + 60 * max_minutes
    with ranks_of(torch.device(device)) as (ranks, own):
        context = Context(
            out=out,
            preset=recipe.preset,
            device=own,
            limits=Limits(deadline=deadline),
            progress=progress if ranks.is_first else lambda *_: None,
            tasks=tasks or LocalTasks(own),
            encoder=_encoder(recipe, own),
            ranks=ranks,
        )
        return _run(recipe, stages, context)


def _encoder(recipe: Recipe, device: torch.device) -> TextEncoder:
    preset = recipe.preset
    if preset.text == "minilm":
        return MiniLMEncoder(preset.dit.text_len).to(device)
    if recipe.teacher.start is None:
        raise ConfigError(
            "a network that reads UMT5's words begins with a model that has it: name one in teacher.start"
        )
    return open_text_encoder(recipe.teacher.start, device)


def _run(recipe: Recipe, stages: Sequence[str], context: Context) -> bool:
    for stage, run in recipe.stages().items():
        if stages and stage not in stages:
            continue
        if context.ranks.size > 1 and stage not in SHARED and not context.done(stage):
            raise TrainingError(
                f"{stage} is made by one process; run it first without torchrun (--stage {stage}), the rest with it"
            )
        try:
            complete = run(context)
        except OSError as err:
            raise TrainingError(f"{stage} cannot write to {context.out}: {err}") from err
        if not complete:
            return False
    if all(context.done(stage) for stage in recipe.stages()):
        if context.ranks.is_first:
            of_world = isinstance(recipe.latents, latents.LatentStage)
            words = vocabulary_of(recipe.world) if of_world else None
            export(context, recipe.student, recipe.teacher.start, words)
        return True
    return bool(stages)
