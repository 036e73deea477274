"""ODE pairs and the student's start: the states that are kept are those the student will meet."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from longtake.core.configs import SamplingConfig
from longtake.core.errors import ConfigError, TrainingError
from longtake.flow.path import x0_from_velocity
from longtake.flow.schedule import few_step_sigmas, solver_sigmas
from longtake.nets.text import MiniLMEncoder
from longtake.sample.teacher import teacher_states
from longtake.train import ode_init, ode_pairs
from longtake.train.batches import LatentClips
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.ode_init import OdeInitStage
from longtake.train.ode_pairs import OdePairs, OdePairStage, kept_steps
from longtake.train.optim import OptimConfig
from longtake.train.stage import Context
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import load_dit
from longtake.train.trainee import Trainee
from tests.tiny import PRESET
from tests.train.tiny_run import prepared, trainees_of

PAIRS = OdePairStage(num_pairs=3, batch=2, num_steps=4, latent_frames=9)
INIT = OdeInitStage(loop=LoopConfig(steps=0, optim=OptimConfig(adam_lr=1e-3)), batch=4)
CHUNK = PRESET.stream.chunk


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory, encoder: MiniLMEncoder) -> Context:
    """A run up to and with its ODE pairs."""
    run = prepared(tmp_path_factory.mktemp("run"), encoder)
    assert ode_pairs.run(PAIRS, run)
    return run


@given(student=st.integers(1, 8), factor=st.integers(1, 12), shift=st.floats(0.5, 10))
def test_the_levels_that_are_kept_are_the_students_own(student: int, factor: int, shift: float) -> None:
    stage = OdePairStage(num_pairs=1, batch=1, num_steps=student * factor, latent_frames=3)
    kept = kept_steps(stage, SamplingConfig(num_steps=student, shift=shift))
    levels = [solver_sigmas(stage.num_steps, shift)[step] for step in kept]
    assert levels == pytest.approx([*few_step_sigmas(student, shift), 0.0], abs=1e-12)
    assert levels[0] == 1
    assert levels[-1] == 0


@pytest.mark.parametrize(("teacher", "student"), [(50, 4), (3, 4), (7, 2)])
def test_a_teacher_that_passes_the_students_levels_by_is_refused(teacher: int, student: int) -> None:
    stage = OdePairStage(num_pairs=1, batch=1, num_steps=teacher, latent_frames=3)
    with pytest.raises(ConfigError, match=f"{teacher} steps must be a multiple of the student's {student}"):
        kept_steps(stage, SamplingConfig(num_steps=student, shift=3.0))


def test_noise_levels_that_the_teacher_does_not_pass_are_refused() -> None:
    """CausVid's own levels are no steps of a shifted schedule: pairs would be labelled with levels they do not have."""
    stage = OdePairStage(num_pairs=1, batch=1, num_steps=48, latent_frames=9)
    causvid = SamplingConfig(num_steps=3, shift=8.0, sigmas=(1.0, 0.757, 0.522))
    with pytest.raises(ConfigError, match=r"noise level 0.757, where the teacher's 48 steps pass 0.9412"):
        kept_steps(stage, causvid)
    said = SamplingConfig(num_steps=2, shift=3.0, sigmas=tuple(few_step_sigmas(2, 3.0)))
    assert kept_steps(stage, said) == (0, 24, 48)


def test_pairs_lie_on_the_guided_teachers_trajectory(paired: Context) -> None:
    pairs = OdePairs.read(paired.folder(ode_pairs.STAGE))
    assert pairs.states.shape == (3, 3, PRESET.dit.in_dim, 9, 4, 6)
    assert pairs.sigmas.tolist() == pytest.approx([1.0, 0.75, 0.0])
    teacher = load_dit(paired, paired.folder(TEACHER), "teacher")
    clips = LatentClips(paired.folder(LATENTS), paired.encoder, CHUNK, paired.device)
    sampling = SamplingConfig(num_steps=4, shift=3.0, guidance_scale=PRESET.teacher.guidance_scale)
    noise, text = pairs.states[:, 0].float(), pairs.text.float()
    states = list(teacher_states(teacher, sampling, noise, text, clips.unconditional(3)))
    for level, step in enumerate((2, 4), 1):
        error = (pairs.states[:, level].float() - states[step - 1]).abs().max()
        assert error < 0.02 * states[step - 1].abs().max()  # fp16, and noise that was rounded to it
    assert (pairs.states[:, 1].float() - states[2]).abs().max() > 0.1  # control: the step beside it is another state


def test_nothing_of_a_trajectory_is_kept_for_gradients(paired: Context) -> None:
    teacher = load_dit(paired, paired.folder(TEACHER), "teacher")
    assert all(p.requires_grad for p in teacher.parameters())
    noise, text = torch.randn(1, PRESET.dit.in_dim, 3, 4, 6), torch.zeros(1, 1, 16, 384)
    for x in teacher_states(teacher, SamplingConfig(num_steps=3, shift=3.0, guidance_scale=2.0), noise, text, text):
        assert not x.requires_grad


def test_pairs_are_made_once_and_only_what_is_missing_again(paired: Context, tmp_path: Path) -> None:
    again = prepared(tmp_path, paired.encoder)
    assert ode_pairs.run(PAIRS, again)
    first, second = (run.folder(ode_pairs.STAGE) for run in (paired, again))
    names = ["0000000.safetensors", "0000002.safetensors"]
    assert sorted(p.name for p in second.glob("*.safetensors")) == names
    kept, lost = (second / name for name in names)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    (second / "provenance.json").unlink()
    assert ode_pairs.run(PAIRS, again)
    assert kept.stat().st_mtime_ns == before
    for name in names:
        a, b = load_file(first / name), load_file(second / name)
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_missing_and_damaged_pairs_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no ODE pairs"):
        OdePairs.read(tmp_path)
    (tmp_path / "0000000.safetensors").write_bytes(b"not a shard")
    with pytest.raises(TrainingError, match=r"0000000\.safetensors is damaged"):
        OdePairs.read(tmp_path)


@pytest.fixture
def student(paired: Context, monkeypatch: pytest.MonkeyPatch) -> Trainee:
    (paired.folder(ode_init.STAGE) / "provenance.json").unlink(missing_ok=True)
    (found,) = trainees_of(monkeypatch, lambda: ode_init.run(INIT, paired))
    return found


class Seen:
    """What the network was asked and what it answered."""

    def __init__(self, net: nn.Module) -> None:
        self.x_t = self.sigma = self.text = self.v = torch.empty(0)
        self.chunk: int | None = None
        net.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, net: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, int], v: Tensor) -> None:
        del net
        self.x_t, self.sigma, self.text = args
        self.chunk, self.v = kwargs["chunk"], v.detach()


def chunk_of(x: Tensor, idx: int) -> Tensor:
    """Latent frames of a chunk; x is [c, f, h, w]."""
    return x[:, idx * CHUNK : (idx + 1) * CHUNK]


def test_every_chunk_stands_at_its_own_level_of_one_trajectory(student: Trainee, paired: Context) -> None:
    pairs = OdePairs.read(paired.folder(ode_pairs.STAGE))
    seen, met, mixed = Seen(student.net), set[int](), False
    for step in range(6):
        student.loss(step, torch.Generator().manual_seed(step))
        assert seen.chunk == CHUNK
        for x_t, sigma, text in zip(seen.x_t, seen.sigma, seen.text, strict=True):
            row = next(r for r, states in enumerate(pairs.text) if torch.equal(states.float(), text))
            same = [r for r in range(3) if torch.equal(pairs.text[r], pairs.text[row])]
            levels = [int((pairs.sigmas == sigma[idx * CHUNK]).nonzero()) for idx in range(3)]
            for idx, level in enumerate(levels):
                assert (sigma[idx * CHUNK : (idx + 1) * CHUNK] == pairs.sigmas[level]).all()
            assert any(
                all(
                    torch.equal(chunk_of(x_t, i), chunk_of(pairs.states[r, level].float(), i))
                    for i, level in enumerate(levels)
                )
                for r in same
            )
            met |= set(levels)
            mixed |= len(set(levels)) > 1
    assert met == {0, 1, 2}  # noise, between, clean
    assert mixed


def test_the_loss_is_the_distance_to_the_end_where_there_is_noise(student: Trainee, paired: Context) -> None:
    pairs = OdePairs.read(paired.folder(ode_pairs.STAGE))
    seen = Seen(student.net)
    for seed in range(4):
        loss, _ = student.loss(0, torch.Generator().manual_seed(seed))
        rows = torch.randint(3, (INIT.batch,), generator=torch.Generator().manual_seed(seed))
        x0 = x0_from_velocity(seen.x_t, seen.v, seen.sigma)
        error = (x0 - pairs.states[rows, -1].float()).square().mean((1, 3, 4))  # [b, f]
        assert float(loss.detach()) == pytest.approx(float(error[seen.sigma > 0].mean()), rel=1e-5)


def test_the_students_start_is_the_teacher(student: Trainee, paired: Context) -> None:
    teacher = load_dit(paired, paired.folder(TEACHER), "teacher")
    for a, b in zip(student.net.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_same_step_draws_the_same_loss(student: Trainee) -> None:
    first, again, other = (
        float(student.loss(0, torch.Generator().manual_seed(seed))[0].detach()) for seed in (1, 1, 2)
    )
    assert first == again != other
