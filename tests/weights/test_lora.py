"""LoRA files in every dialect correct the same weights by the same amounts; others are refused in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from longtake.cli.main import main
from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import read_weights
from longtake.weights.lora import merged_tensors, read_lora
from longtake.weights.presets import check_model, open_nets
from longtake.weights.tensor_files import ForeignTensor
from longtake.weights.wan.names import diffusers_name
from tests.tiny import random_dit, write_model

RANK, ALPHA = 2, 3.0
LAYERS = ("blocks.0.self_attn.q", "blocks.0.cross_attn.k", "blocks.1.cross_attn.o", "blocks.1.ffn.0", "blocks.1.ffn.2")
WEIGHTS = random_dit(dtype=torch.float32).state_dict()
SHAPES = {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}


def factors(layer: str) -> tuple[Tensor, Tensor]:
    """D and U of a layer."""
    rng = torch.Generator().manual_seed(LAYERS.index(layer))
    outputs, inputs = SHAPES[f"{layer}.weight"]
    return torch.randn(RANK, inputs, generator=rng), torch.randn(outputs, RANK, generator=rng)


def kohya(layer: str, prefix: str = "lora_unet_") -> dict[str, Tensor]:
    down, up = factors(layer)
    name = f"{prefix}{layer.replace('.', '_')}"
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}


def halves(prefix: str, middle: str = "") -> Callable[[str], dict[str, Tensor]]:
    def named(layer: str) -> dict[str, Tensor]:
        down, up = factors(layer)
        return {f"{prefix}{layer}.lora_A{middle}.weight": down, f"{prefix}{layer}.lora_B{middle}.weight": up}

    return named


def diffusers(layer: str) -> dict[str, Tensor]:
    down, up = factors(layer)
    name = f"transformer.{diffusers_name(layer + '.weight').removesuffix('.weight')}"
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


DIALECTS = {  # name: tensors of a layer, and the scale alpha / r that they stand for
    "kohya": (kohya, ALPHA / RANK),
    "videox-fun": (lambda layer: kohya(layer, "lora_unet__"), ALPHA / RANK),
    "comfyui": (halves("diffusion_model."), 1.0),
    "diffusers": (diffusers, 1.0),
    "diffsynth": (halves("pipe.dit.", ".default"), 1.0),
    "peft": (halves("base_model.model.", ".default"), 1.0),
    "ours": (
        lambda layer: {**halves("diffusion_model.")(layer), f"diffusion_model.{layer}.alpha": torch.tensor(ALPHA)},
        1.5,
    ),
}


def written(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def merged(path: Path, scale: float = 1.0) -> dict[str, Tensor]:
    foreign = {name: ForeignTensor(shape=tuple(t.shape), read=lambda t=t: t) for name, t in WEIGHTS.items()}
    return {name: t.read() for name, t in merged_tensors(foreign, [(read_lora(path, SHAPES), scale)]).items()}


@pytest.mark.parametrize("scale", [1.0, 0.6, -1.0, 0.0])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_corrects_the_weights_as_the_formula_says(dialect: str, scale: float, tmp_path: Path) -> None:
    tensors, factor = DIALECTS[dialect]
    path = written({k: t for layer in LAYERS for k, t in tensors(layer).items()}, tmp_path / "lora.safetensors")
    found = merged(path, scale)
    for layer in LAYERS:
        down, up = factors(layer)
        wanted = WEIGHTS[f"{layer}.weight"] + scale * factor * (up @ down)
        torch.testing.assert_close(found[f"{layer}.weight"], wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, WEIGHTS[name])}
    assert changed == (set() if scale == 0 else {f"{layer}.weight" for layer in LAYERS})


def test_longlives_container(tmp_path: Path) -> None:
    tensors = {k: t for layer in LAYERS for k, t in DIALECTS["peft"][0](layer).items()}
    torch.save({"generator_lora": tensors, "step": 3000}, tmp_path / "lora.pt")
    lora = read_lora(tmp_path / "lora.pt", SHAPES)
    assert set(lora.low_rank) == {f"{layer}.weight" for layer in LAYERS}
    assert lora.unmatched == ()


@pytest.mark.parametrize(("settings", "factor"), [({}, 1.0), ({"use_rslora": True}, RANK**0.5)])
def test_pefts_folder_has_its_alpha_in_a_file(settings: dict[str, bool], factor: float, tmp_path: Path) -> None:
    written(DIALECTS["peft"][0](LAYERS[0]), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "r": RANK, **settings}))
    low = read_lora(tmp_path, SHAPES).low_rank[f"{LAYERS[0]}.weight"]
    assert low.scale == pytest.approx(ALPHA / RANK * factor)


def test_diffusers_writes_alpha_into_the_header(tmp_path: Path) -> None:
    told = json.dumps({"transformer.lora_alpha": ALPHA, "transformer.r": RANK})
    save_file(diffusers(LAYERS[0]), tmp_path / "lora.safetensors", {"lora_adapter_metadata": told})
    assert read_lora(tmp_path / "lora.safetensors", SHAPES).low_rank[f"{LAYERS[0]}.weight"].scale == ALPHA / RANK


def test_whole_differences_of_weights_biases_and_modulations(tmp_path: Path) -> None:
    names = {
        "diffusion_model.blocks.0.norm3.diff": "blocks.0.norm3.weight",
        "diffusion_model.blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "diffusion_model.blocks.1.diff_m": "blocks.1.modulation",
        "diffusion_model.head.head.diff": "head.head.weight",
        "diffusion_model.patch_embedding.diff": "patch_embedding.weight",
    }
    tensors = {key: torch.randn(SHAPES[name]) for key, name in names.items()}
    found = merged(written(tensors, tmp_path / "lora.safetensors"), 0.5)
    for key, name in names.items():
        torch.testing.assert_close(found[name], WEIGHTS[name] + 0.5 * tensors[key])


def test_a_convolution_has_low_rank_corrections_too(tmp_path: Path) -> None:
    outputs, *inputs = SHAPES["patch_embedding.weight"]
    down, up = torch.randn(RANK, *inputs), torch.randn(outputs, RANK, 1, 1, 1)
    key = "diffusion_model.patch_embedding"
    path = written({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    wanted = WEIGHTS["patch_embedding.weight"] + torch.einsum("or,rcfhw->ocfhw", up[..., 0, 0, 0], down)
    torch.testing.assert_close(merged(path)["patch_embedding.weight"], wanted)


def test_what_the_network_does_not_have_is_named_and_counted(tmp_path: Path) -> None:
    extra = {"diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": torch.zeros(2, 3)}
    lora = read_lora(written({**kohya(LAYERS[0]), **extra}, tmp_path / "lora.safetensors"), SHAPES)
    assert lora.unmatched == tuple(extra)
    assert lora.told == (
        "1 parameters corrected; 1 tensors are for parts that this network does not have "
        "(diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight)"
    )


def halved(layer: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in kohya(layer).items() if "lora_up" not in key}


REFUSED = {
    "a network": (WEIGHTS, "is no LoRA: it has a tensor"),
    "another network": (
        {k.replace("blocks_0", "blocks_7"): t for k, t in kohya(LAYERS[0]).items()},
        "for another network: none of its 3",
    ),
    "another width": (
        {k: t if "down" not in k else t[:, :-1] for k, t in kohya(LAYERS[0]).items()},
        r"for another network: .*\(2, 47\)",
    ),
    "a half": (halved(LAYERS[0]), "other half is missing"),
    "twice": ({**kohya(LAYERS[0]), **halves("diffusion_model.")(LAYERS[0])}, "twice"),
    "a LoHa": ({"lora_unet_blocks_0_ffn_0.hada_w1_a": torch.zeros(2, 2)}, "is a LoHa, not a LoRA"),
    "a LoKr": ({"lora_unet_blocks_0_ffn_0.lokr_w1": torch.zeros(2, 2)}, "is a LoKr, not a LoRA"),
    "a DoRA": ({**kohya(LAYERS[0]), "lora_unet_blocks_0_ffn_0.dora_scale": torch.zeros(2)}, "is a DoRA, not a LoRA"),
    "no number": (
        {**kohya(LAYERS[0]), "lora_unet_blocks_0_self_attn_q.alpha": torch.tensor(torch.nan)},
        "no usable alpha",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str, tmp_path: Path) -> None:
    tensors, message = REFUSED[what]
    with pytest.raises(WeightsError, match=message):
        read_lora(written(tensors, tmp_path / "lora.safetensors"), SHAPES)


def test_files_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing, damaged or no safetensors file"):
        read_lora(tmp_path / "lora.safetensors", SHAPES)
    with pytest.raises(WeightsError, match="holds no LoRA: expected one of adapter_model"):
        read_lora(tmp_path, SHAPES)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nothing")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"adapter_config.json is damaged"):
        read_lora(tmp_path, SHAPES)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


def test_two_loras_are_merged_into_a_model_by_the_command(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_model(tmp_path / "base")
    first = written(kohya(LAYERS[0]), tmp_path / "first.safetensors")
    second = written(
        {**diffusers(LAYERS[0]), "diffusion_model.img_emb.diff": torch.zeros(3)}, tmp_path / "second.safetensors"
    )
    words = ["models", "import", str(base), "--lora", f"{first}:0.5", "--lora", str(second)]
    assert main(words) == 2
    assert "needs a name of its own" in capsys.readouterr().err
    assert main([*words, "--name", "both"]) == 0
    assert "second.safetensors at 1: 1 parameters corrected; 1 tensors are for parts" in capsys.readouterr().err
    before, after = read_weights(base, "student"), read_weights(home / "both", "student")
    down, up = factors(LAYERS[0])
    name = f"{LAYERS[0]}.weight"
    wanted = (before[name].float() + (0.5 * ALPHA / RANK + 1) * (up @ down)).to(before[name].dtype)
    torch.testing.assert_close(after[name], wanted, rtol=0, atol=2e-3 * float(wanted.abs().max()))
    assert all(torch.equal(before[key], after[key]) for key in before if key != name)
    assert (home / "both" / "codec.safetensors").samefile(base / "codec.safetensors")
    nets = open_nets("both", device="cpu")
    assert nets.preset.name == "both"
    check_model(home / "both")


def test_a_lora_that_does_not_fit_leaves_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_model(tmp_path / "base")
    wrong = written(halved(LAYERS[0]), tmp_path / "wrong.safetensors")
    assert main(["models", "import", str(base), "--lora", str(wrong), "--name", "mine"]) == 2
    assert "other half is missing" in capsys.readouterr().err
    assert main(["models", "import", str(base), "--lora", f"{wrong}:much", "--name", "mine"]) == 2
    assert "with a number as its scale" in capsys.readouterr().err
    assert not list(home.glob("*"))
