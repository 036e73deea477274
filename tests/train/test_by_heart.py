"""Every stage on a world of one clip: whatever is drawn, what comes out is that clip."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from longtake.core.cue import Settings
from longtake.core.shapes import Latent
from longtake.nets.kv_cache import KVCache
from longtake.nets.low_rank import corrected
from longtake.nets.text import MiniLMEncoder
from longtake.sample.denoise import Schedule, denoise
from longtake.sample.plans import ChunkPlan
from longtake.sample.sampler import Sampler, rollout
from longtake.sample.teacher import teacher_clip
from longtake.train import (
    ar_teacher,
    consistency,
    dmd,
    latents,
    ode_init,
    ode_pairs,
    source_adapter,
    source_pairs,
    teacher,
)
from longtake.train.ar_teacher import ArTeacherStage
from longtake.train.consistency import ConsistencyStage
from longtake.train.dmd import DmdStage
from longtake.train.loop import LoopConfig
from longtake.train.ode_init import OdeInitStage
from longtake.train.ode_pairs import OdePairStage
from longtake.train.optim import OptimConfig
from longtake.train.source_adapter import SourceAdapterStage
from longtake.train.stage import Context
from longtake.train.teacher import Phase, TeacherStage, load_dit
from longtake.weights.checkpoint import read_weights
from tests.tiny import PRESET, random_codec
from tests.train.test_overfit import clip
from tests.train.tiny_run import context

pytestmark = pytest.mark.slow

FRAMES = 6
SMALL = replace(PRESET, dit=replace(PRESET.dit, dim=64, ffn_dim=128), clip_latent_frames=FRAMES)
FAST = OptimConfig(adam_lr=8e-3, muon_lr=8e-3, warmup=5, cooldown=0.5)
GENTLE = OptimConfig(adam_lr=2e-3, muon_lr=2e-3, warmup=5, cooldown=0.5)
SLOW = OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=1, max_grad_norm=10.0)
PROMPT = "a red boat on the sea"


def loop(steps: int, optim: OptimConfig) -> LoopConfig:
    return LoopConfig(steps=steps, optim=optim, ema_decay=0.9)


TEACHING = TeacherStage(
    loop=loop(800, FAST), phases=(Phase(until=800, latent_frames=FRAMES, batch=8, shifts=(1.0, 3.0)),)
)
PAIRS = OdePairStage(num_pairs=24, batch=8, num_steps=8, latent_frames=FRAMES)
INIT = OdeInitStage(loop=loop(120, GENTLE), batch=8)
FORCED = ArTeacherStage(loop=loop(120, GENTLE), batch=8, latent_frames=FRAMES, shift=3.0)
AGREEING = ConsistencyStage(loop=loop(120, GENTLE), batch=8, latent_frames=FRAMES, num_steps=8, guidance_scale=1.0)
DISTILLING = DmdStage(
    loop=loop(50, SLOW),
    critic=SLOW,
    batch=4,
    latent_frames=FRAMES,
    rollout_frames=FRAMES,
    shift=3.0,
    guidance_scale=1.0,
)
ADAPTING = SourceAdapterStage(loop=loop(300, FAST), batch=8, latent_frames=FRAMES, rank=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run whose world is one clip, with a teacher that knows it."""
    made = context(tmp_path_factory.mktemp("by_heart"), MiniLMEncoder(SMALL.dit.text_len), SMALL)
    folder = made.begin(latents.STAGE)
    save_file({"latents": known()}, folder / "0.safetensors", {"captions": f'[["{PROMPT}", "{PROMPT}"]]'})
    made.finish(latents.STAGE)
    assert teacher.run(TEACHING, made)
    return made


@pytest.fixture(scope="module")
def initialised(run: Context) -> Context:
    assert ode_pairs.run(PAIRS, run)
    assert ode_init.run(INIT, run)
    return run


@pytest.fixture(scope="module")
def agreed(run: Context) -> Context:
    assert ar_teacher.run(FORCED, run)
    assert consistency.run(AGREEING, run)
    return run


def known() -> Tensor:
    """The clip."""
    return torch.cat((clip(), clip().flip(2)), 2)


def error(made: Tensor, wanted: Tensor | None = None) -> float:
    """Mean squared, in parts of what another draw of such a clip would have (2 for a stranger, 1 for grey)."""
    wanted = known() if wanted is None else wanted
    return float((made - wanted).square().mean() / wanted.square().mean())


def by_teacher(run: Context) -> Tensor:
    dit = load_dit(run, run.folder(teacher.STAGE), "teacher")
    text = run.encoder(PROMPT)
    noise = torch.randn(1, SMALL.dit.in_dim, FRAMES, 4, 6, generator=torch.Generator().manual_seed(5))
    return teacher_clip(dit, replace(SMALL.teacher, num_steps=12, guidance_scale=1.0), noise, text, text)


def by_student(run: Context, stage: str) -> Tensor:
    dit = load_dit(run, run.folder(stage), "student")
    sampler = Sampler(SMALL, dit, random_codec(dtype=torch.float32), run.encoder)
    plans = (ChunkPlan(idx=i, wording=((PROMPT, 1.0),), settings=Settings(seed=7)) for i in range(2))
    return torch.cat([result.latent for result in rollout(sampler, plans)], 2)


def by_source_adapter(run: Context, source: Tensor) -> Tensor:
    """What the student with its source adapter makes of a source."""
    dit = load_dit(run, run.folder(ode_init.STAGE), "student")
    dit.add_source()
    dit.load_state_dict(corrected(dit.state_dict(), read_weights(run.folder(source_adapter.STAGE), "lora")))
    schedule, cache, made = Schedule.of(dit, SMALL.student), KVCache(), []
    rng = torch.Generator().manual_seed(7)

    def fresh(step: int) -> Latent:
        del step
        return torch.randn(source[:, :, : SMALL.stream.chunk].shape, generator=rng)

    with torch.no_grad():
        text = dit.project_text(run.encoder(PROMPT))
        for followed in source.split(SMALL.stream.chunk, 2):
            past = dit.rotated_context(cache, followed.shape)
            made.append(denoise(dit, schedule, text, past, fresh, source=followed))
            cache = cache.append(dit.clean_pass(made[-1], schedule.clean, text, past), SMALL.stream)
    return torch.cat(made, 2)


def test_the_teacher_and_the_initialised_student(initialised: Context) -> None:
    assert error(by_teacher(initialised)) < 0.1
    assert error(by_student(initialised, ode_init.STAGE)) < 0.1


def test_teacher_forcing_and_consistency(agreed: Context) -> None:
    assert error(by_student(agreed, consistency.STAGE)) < 0.1


@pytest.mark.parametrize("change", [{}, {"inputs": "data"}, {"start": "consistency"}, {"score": "ar_teacher"}])
def test_distribution_matching_forgets_nothing(
    initialised: Context, agreed: Context, tmp_path: Path, change: dict[str, str]
) -> None:
    del agreed
    own = replace(initialised, out=tmp_path)
    for stage in (latents, teacher, ode_init, ar_teacher, consistency):
        (tmp_path / stage.STAGE).symlink_to(initialised.folder(stage.STAGE))
    stage = replace(DISTILLING, **change)  # type: ignore[arg-type]
    assert dmd.run(stage, own)
    assert error(by_student(own, dmd.STAGE)) < 0.1


def test_a_source_adapter_makes_of_a_source_what_the_student_alone_would_not(initialised: Context) -> None:
    source, shown = known().flip(4), known().flip(3)
    folder = initialised.begin(source_pairs.STAGE)
    captions = f'[["{PROMPT}", "{PROMPT}"]]'
    save_file({"latents": shown, "sources": source}, folder / "0.safetensors", {"captions": captions})
    initialised.finish(source_pairs.STAGE)
    assert source_adapter.run(ADAPTING, ode_init.STAGE, initialised)
    assert error(by_source_adapter(initialised, source), shown) < 0.1
    assert error(by_student(initialised, ode_init.STAGE), shown) > 1
