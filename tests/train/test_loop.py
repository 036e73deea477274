"""The shared loop: resume equals uninterrupted, averages by formula, sick runs stop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from longtake.core.configs import DiTConfig
from longtake.core.errors import TrainingError
from longtake.nets.dit import DiT
from longtake.train.ema import EMA
from longtake.train.loop import Limits, LoopConfig, precision, train
from longtake.train.optim import Muon, OptimConfig, optimizers_for, orthogonalise
from longtake.train.run import denormals_flushed
from longtake.train.trainee import Trainee

OPTIM = OptimConfig(adam_lr=1e-2, muon_lr=1e-2, warmup=3, cooldown=0.5)
STEPS = 12


def nothing(done: int, of: int, values: Mapping[str, float]) -> None:
    del done, of, values


class StopAfter(Limits):
    """A limit that is reached after some steps; asked once a step."""

    def __init__(self, steps: int) -> None:
        object.__setattr__(self, "deadline", 0.0)
        object.__setattr__(self, "left", [steps])

    __slots__ = ("left",)

    def reached(self) -> bool:
        self.left[0] -= 1
        return self.left[0] <= 0


def trainee() -> Trainee:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        x = torch.randn(16, 6, generator=rng)
        error = (net(x) - x[:, :4].sin()).square().mean()
        return error, {"loss": float(error.detach())}

    return Trainee(name="net", net=net, optim=OPTIM, loss=loss, ema=EMA(net, 0.9))


def config(steps: int = STEPS) -> LoopConfig:
    return LoopConfig(steps=steps, optim=OPTIM, accumulate=2, log_every=4)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = trainee(), trainee(), trainee()
    assert train(tmp_path / "a", config(), [whole], limits=Limits(), progress=nothing)
    assert not train(tmp_path / "b", config(), [first], limits=StopAfter(5), progress=nothing)
    assert train(tmp_path / "b", config(), [second], limits=Limits(), progress=nothing)
    for a, b in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.ema is not None
    assert second.ema is not None
    for name, tensor in whole.ema.shadow.items():
        assert torch.equal(tensor, second.ema.shadow[name])
    pairs = zip(whole.net.parameters(), first.net.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path: Path) -> None:
    sick = trainee()
    healthy = sick.loss

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        value, shown = healthy(step, rng)
        return (value * float("nan") if step == 6 else value), shown

    sick.loss = loss
    with pytest.raises(TrainingError, match="step 6"):
        train(tmp_path, config(), [sick], limits=Limits(), progress=nothing)


def test_a_damaged_state_is_told_in_one_line(tmp_path: Path) -> None:
    tmp_path.joinpath("state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="remove its folder"):
        train(tmp_path, config(), [trainee()], limits=Limits(), progress=nothing)


def test_accumulation_equals_one_large_batch() -> None:
    """Two micro-batches of the same loss give the mean of their gradients."""
    net = nn.Linear(3, 1, bias=False)
    x = torch.randn(8, 3)
    net(x).square().mean().backward()
    assert net.weight.grad is not None
    whole = net.weight.grad.clone()
    net.zero_grad()
    for half in x.chunk(2):
        (net(half).square().mean() / 2).backward()
    assert (net.weight.grad - whole).abs().max() < 1e-6


def test_the_average_follows_its_formula() -> None:
    net = nn.Linear(2, 1, bias=False)
    ema = EMA(net, 0.5)
    expected = net.weight.detach().clone()
    for n in range(5):
        with torch.no_grad():
            net.weight.add_(1.0)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * net.weight.detach()
        ema.update(net)
    assert (ema.shadow["weight"] - expected).abs().max() < 1e-6


def test_the_rate_warms_up_holds_and_cools_down() -> None:
    factors = [OptimConfig(adam_lr=1.0, warmup=4, cooldown=0.5).factor(s, 20) for s in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[9] == 1.0
    assert factors[15] == 0.5
    assert factors[19] == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_orthogonalise_pushes_singular_values_towards_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    matrices[1] *= 1000
    u, before, v = torch.linalg.svd(matrices, full_matrices=False)
    out = orthogonalise(matrices)
    assert out.dtype == torch.float32
    values = (u.mT @ out @ v.mT).diagonal(dim1=1, dim2=2)  # in the matrix's own directions
    assert 0.2 < float(values.min()) <= float(values.max()) < 1.3
    assert before.max() > 1000


def test_muon_steps_each_matrix_as_if_it_were_alone() -> None:
    nets = [nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False), nn.Conv2d(2, 6, 1, bias=False)]
    for net in nets:
        net.weight.grad = torch.randn_like(net.weight)
    alone = [nn.Parameter(net.weight.detach().clone()) for net in nets]
    Muon([net.weight for net in nets], lr=0.1).step()
    for net, p in zip(nets, alone, strict=True):
        before = p.detach().clone()
        p.grad = net.weight.grad
        Muon([p], lr=0.1).step()
        assert torch.allclose(net.weight, p, atol=1e-6)
        assert (p - before).abs().max() > 0.01


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_a_step_of_muon_has_the_rms_of_one_of_adamw(shape: tuple[int, int]) -> None:
    """0.2 of the rate, whatever the shape (Liu et al. 2025, eq. 4)."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.zeros(shape))
    p.grad = torch.randn(shape)
    Muon([p], lr=0.1).step()
    assert float(p.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=0.2)


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    net = nn.ModuleDict({"head": nn.Linear(4, 4), "inner": nn.Linear(4, 4)})
    adam, muon = optimizers_for(net, OPTIM)
    assert isinstance(muon, Muon)
    assert muon.param_groups[0]["params"] == [net["inner"].weight]
    assert len(adam.param_groups[0]["params"]) == 3


@pytest.mark.parametrize("bf16", [False, True])
def test_a_weight_used_first_without_gradient_still_gets_one(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr("longtake.train.loop.has_bf16_units", lambda _: True)
    torch.manual_seed(0)
    net = nn.Linear(64, 64)
    x = torch.randn(32, 64)
    with precision(net, bf16=bf16):
        with torch.no_grad():
            target = net(x)
        out = net(x)
    assert out.dtype == (torch.bfloat16 if bf16 else torch.float32)
    (out.float() - target.float() - 1).square().mean().backward()
    assert net.weight.grad is not None
    expected = -2 * torch.ones(32, 64).T @ x / out.numel()
    assert torch.allclose(net.weight.grad, expected, rtol=0.02, atol=1e-3)


def test_denormals_are_flushed_in_training_and_not_after_it() -> None:
    tiny = torch.tensor([2.0**-127])
    with denormals_flushed():
        assert float(tiny * 0.5 * 2**20) == 0
    assert float(tiny * 0.5 * 2**20) > 0


def test_compiling_without_a_compiler_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainingError, match=r"needs a C\+\+ compiler.*compile=False"):
        LoopConfig(steps=1, optim=OPTIM, compile=True).maybe_compile(torch.sin)
    assert LoopConfig(steps=1, optim=OPTIM).maybe_compile(torch.sin) is torch.sin


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("chunk", [None, 3])
def test_a_compiled_network_says_and_learns_the_same(chunk: int | None) -> None:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(dim=48, num_layers=2, num_heads=2, ffn_dim=96, text_dim=8, text_len=4))
    nn.init.normal_(dit.head.head.weight, std=0.1)
    x, sigma, text = torch.randn(2, 16, 6, 4, 6), torch.rand(2, 6), torch.randn(2, 2, 4, 8)
    found = []
    for compiled in (False, True):
        forward = LoopConfig(steps=1, optim=OPTIM, compile=compiled).maybe_compile(dit)
        v = forward(x, sigma, text, chunk)
        found.append((v, *torch.autograd.grad(v.square().sum(), list(dit.parameters()))))
    for eager, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-4)


def test_micro_batches_are_averaged(tmp_path: Path) -> None:
    """However many micro-batches share a step: its gradient is their mean."""
    norms = []
    for num in (1, 4):
        one = trainee()
        logged: dict[str, float] = {}
        train(
            tmp_path / str(num),
            replace(config(1), accumulate=num, log_every=1),
            [replace(one, loss=lambda *_, net=one.net: (sum(p.sum() for p in net.parameters()), {}))],
            limits=Limits(),
            progress=lambda *rest, logged=logged: logged.update(rest[2]),
        )
        norms.append(logged[f"{one.name}/grad_norm"])
    assert norms[0] == pytest.approx(norms[1])
