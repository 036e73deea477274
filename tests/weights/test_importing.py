"""Published folders, small: converted, opened by name, streamed from; and what is refused, and how."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import longtake
from longtake.cli.main import main
from longtake.core.errors import WeightsError
from longtake.core.shapes import PictureSize
from longtake.weights.manifest import read_manifest
from longtake.weights.presets import check_model, describe, list_models, model_folder, open_nets
from longtake.weights.wan.presets import STUDENTS, TAEW, WANS
from tests import published
from tests.published import WAN_DIT, WAN_VAE, network


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def base(home: Path, tmp_path: Path) -> Path:
    """A bidirectional Wan, imported."""
    assert main(["models", "import", str(published.original(tmp_path / "Wan")), "--precision", "fp32"]) == 0
    return home / "models" / "wan"


def self_forcing(folder: Path, seed: int = 1) -> Path:
    folder.mkdir()
    named = {f"model.{name}": tensor for name, tensor in network(seed).items()}
    torch.save({"generator_ema": named}, folder / "self_forcing_dmd.pt")
    (folder / "config.json").write_text(json.dumps({"num_heads": WAN_DIT.num_heads}))
    return folder / "self_forcing_dmd.pt"


@pytest.mark.parametrize("layout", [published.original, published.diffusers])
def test_a_published_folder_becomes_a_model(layout, home: Path, tmp_path: Path) -> None:
    assert main(["models", "import", str(layout(tmp_path / "Wan")), "--name", "mine", "--precision", "fp32"]) == 0
    folder = model_folder("mine")
    assert folder == home / "models" / "mine"
    preset, hashes = read_manifest(folder)
    assert (preset.dit, preset.codec, preset.text) == (WAN_DIT, WAN_VAE, "umt5")
    assert set(hashes) == {"teacher", "codec", "text"}
    nets = open_nets("mine", teacher=True, device="cpu")
    for name, tensor in network().items():
        assert torch.equal(nets.dit.state_dict()[name], tensor)
    for name, tensor in published.autoencoder().state_dict().items():
        assert torch.equal(nets.codec.state_dict()[name], tensor)
    check_model(folder)
    assert not [p for p in folder.parent.iterdir() if p.name != "mine"]


def test_text_states_are_those_of_the_published_encoder(base: Path) -> None:
    encoder = open_nets("wan", teacher=True, device="cpu").text_encoder
    states = encoder("a red boat &amp;amp;  on the sea")
    assert states.shape == (1, 1, 512, published.WIDTH)
    ids = torch.tensor([[3, 4, 5, 2, 6, 7, 8, 1]])  # "&" is no word of this tokenizer
    with torch.no_grad():
        theirs = published.text_encoder()(input_ids=ids).last_hidden_state[0]
    assert encoder.num_tokens("a red boat & on the sea") == 8
    assert (states[0, 0, :8] - theirs).abs().max() < 0.05 * theirs.abs().max()  # the file is in bf16
    assert not states[0, 0, 8:].any()
    cached = list((base.parent.parent / "text").rglob("*.safetensors"))
    assert len(cached) == 1
    assert torch.equal(encoder("a red boat & on the sea"), states)
    assert list((base.parent.parent / "text").rglob("*.safetensors")) == cached


@pytest.mark.usefixtures("base")
def test_a_published_student_streams(tmp_path: Path) -> None:
    path = self_forcing(tmp_path / "students")
    words = ["models", "import", str(path), "--student", "self-forcing", "--base", "wan", "--precision", "fp32"]
    assert main(words) == 0
    size = PictureSize(height=32, width=48)
    with longtake.open("self-forcing", size=size, device="cpu") as studio:
        take = studio.take("a red boat on the sea")
        chunks = []
        for chunk in take.stream(seconds=2):
            chunks.append(chunk)
            if chunk.index == 0:
                take.cue("night falls")
        assert [len(chunk.frames) for chunk in chunks] == [9, 12, 12]
        assert chunks[0].frames.shape == (9, 32, 48, 3)
        assert chunks[1].prompt.endswith("night falls")
        take.rewind(to=0)
        take.cue("night falls")
        again = list(take.stream(seconds=1))
        assert torch.equal(again[0].frames, chunks[1].frames)
        branch = take.retake(at=1, prompt="the sea")
        assert not torch.equal(next(branch.stream(chunks=1)).frames, chunks[1].frames)
        take.script().save(tmp_path / "take.json")
        replayed = list(studio.replay(tmp_path / "take.json").stream())
        assert [c.prompt for c in replayed] == ["a red boat on the sea", again[0].prompt, again[0].prompt][
            : len(replayed)
        ]
        assert torch.equal(replayed[1].frames, again[0].frames)
        image = chunks[0].frames[:1]
        clip = torch.cat([chunk.frames for chunk in chunks])
        longer = torch.cat([c.frames for c in studio.extend(clip, "night falls").stream(seconds=3)])
        assert len(longer) >= 48
        assert len(torch.cat([c.frames for c in studio.animate(image, "the sea").stream(seconds=1)])) >= 16
        assert len(torch.cat([c.frames for c in studio.restyle([chunks[1].frames], "night").stream()])) > 0


@pytest.mark.usefixtures("base")
def test_a_student_shares_the_files_of_its_base(home: Path, tmp_path: Path) -> None:
    path = self_forcing(tmp_path / "students")
    assert main(["models", "import", str(path), "--student", "self-forcing", "--base", "wan"]) == 0
    for file in ("codec.safetensors", "text/model.safetensors"):
        assert (home / "models" / "self-forcing" / file).samefile(home / "models" / "wan" / file)
    assert [info.name for info in list_models()][-2:] == ["self-forcing", "wan"]
    assert describe(home / "models" / "wan").parameters["teacher"] == sum(t.numel() for t in network().values())


@pytest.mark.usefixtures("base")
def test_the_light_codec_takes_the_place_of_wans_own(tmp_path: Path) -> None:
    from longtake.nets.light_codec import LightCodec

    torch.save(LightCodec(TAEW).state_dict(), tmp_path / "taew2_1.pth")
    path = self_forcing(tmp_path / "students")
    codec = str(tmp_path / "taew2_1.pth")
    words = ["models", "import", str(path), "--student", "self-forcing", "--base", "wan", "--codec", codec]
    assert main([*words, "--name", "light"]) == 0
    assert read_manifest(model_folder("light"))[0].codec == TAEW


def test_what_is_no_wan_is_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Wan"
    lora = tmp_path / "lora.safetensors"
    save_file({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 2)}, lora)
    other = tmp_path / "other.safetensors"
    save_file({"transformer_blocks.0.attn.weight": torch.zeros(2)}, other)
    image = tmp_path / "i2v.safetensors"
    wide = replace(WAN_DIT, in_dim=36)
    save_file({**network(), "patch_embedding.weight": torch.zeros(wide.dim, 36, 1, 2, 2)}, image)
    vace = tmp_path / "vace.safetensors"
    save_file({**network(), "vace_blocks.0.before_proj.weight": torch.zeros(2)}, vace)
    part = tmp_path / "part.safetensors"
    save_file({name: t for name, t in network().items() if name != "blocks.1.norm3.bias"}, part)
    two = tmp_path / "two"
    published.diffusers(two)
    (two / "transformer_2").mkdir()
    for path, message in (
        (vace, "1 are unknown (e.g. vace_blocks.0.before_proj.weight)"),
        (part, "1 tensors are missing (e.g. blocks.1.norm3.bias)"),
        (two, "two networks, one for each half"),
        (folder / "Wan2.1_VAE.pth", "it looks like a Wan video autoencoder; give it as --codec"),
        (folder / "models_t5_umt5-xxl-enc-bf16.pth", "it looks like a UMT5 text encoder; give its folder as --text"),
        (lora, "this is a LoRA"),
        (other, "a network of another family"),
        (image, "image-to-video"),
        (tmp_path / "nothing", "no file or folder here"),
    ):
        assert main(["models", "import", str(path), "--base", "wan", "--name", "x"]) == 2
        assert message in capsys.readouterr().err
    assert [p.name for p in base.parent.iterdir()] == ["wan"]


@pytest.mark.usefixtures("base")
def test_missing_parts_and_wrong_words_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = self_forcing(tmp_path / "students")
    twice = tmp_path / "bidirectional_checkpoint2"
    twice.mkdir()
    (twice / "model.pt").write_bytes(bare.read_bytes())
    plain = tmp_path / "plain.safetensors"
    save_file(network(), plain)
    for words, message in (
        ([str(bare)], "say which student it is"),
        ([str(bare), "--student", "longlive", "--base", "wan"], "is a network and a LoRA (models/lora.pt): give both"),
        ([str(bare), "--name", "../../escape"], "a model's name has letters, digits"),
        ([str(bare), "--student", "self-forcing", "--sigmas", "1,0.5"], "self-forcing has its noise levels"),
        ([str(bare), "--sigmas", "1,x", "--base", "wan"], "noise levels are numbers"),
        ([str(plain), "--sink", "3", "--base", "wan"], "those of a causal student"),
        (
            [str(bare), "--sigmas", "1", "--base", "wan", "--from-key", "critic"],
            'has no entry "critic" with tensors; it has',
        ),
        ([str(twice), "--student", "causvid", "--base", "wan"], "cannot go on from memory"),
        ([str(plain)], "comes without a codec"),
        ([str(bare), "--student", "self-forcin"], 'no student "self-forcin" is known'),
        ([str(bare), "--student", "self-forcing"], "wan-1.3b is not here yet"),
        ([str(tmp_path / "Wan")], "is there already"),
        ([str(plain), "--base", "tiny-world", "--name", "x"], "has no UMT5 encoder"),
        (["gdhe17/Self-Forcing"], "say which student: --student self-forcing"),
        ([str(plain), "--base", "wan", "--codec", str(bare), "--name", "x"], "is no codec for Wan"),
    ):
        assert main(["models", "import", *words]) == 2
        assert message in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "home" / "models").iterdir()] == ["wan"]


@pytest.mark.usefixtures("base")
def test_a_teacher_cannot_be_directed_and_says_so() -> None:
    with pytest.raises(WeightsError, match=r"wan has no student.*import a causal student"):
        longtake.open("wan", device="cpu")


@pytest.mark.usefixtures("home")
def test_a_model_that_is_known_but_not_here_says_how_to_get_it() -> None:
    with pytest.raises(WeightsError, match="longtake models import causvid"):
        longtake.open("causvid")


def test_check_finds_a_changed_byte(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "check", "wan"]) == 0
    file = base / "text" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main(["models", "check", "wan"]) == 2
    assert "text in" in capsys.readouterr().err


@pytest.mark.usefixtures("base")
def test_a_bare_network_under_a_students_names_is_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({f"model.{name}": tensor for name, tensor in network().items()}, tmp_path / "rewardforcing.pt")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": WAN_DIT.num_heads}))
    words = ["models", "import", str(tmp_path / "rewardforcing.pt"), "--base", "wan"]
    assert main([*words, "--name", "x"]) == 2
    assert "looks like a causal student by its names" in capsys.readouterr().err
    assert main([*words, "--name", "both-ways", "--teacher"]) == 0
    assert set(read_manifest(model_folder("both-ways"))[1]) == {"teacher", "codec", "text"}
    assert main([*words, "--name", "mine", "--sigmas", "1,0.75", "--chunk", "1", "--window", "6", "--sink", "2"]) == 0
    preset, hashes = read_manifest(model_folder("mine"))
    assert set(hashes) == {"student", "codec", "text"}
    assert preset.student.sigmas == (1.0, 0.75)
    assert (preset.stream.chunk, preset.stream.window, preset.stream.sink) == (1, 6, 2)


@pytest.mark.usefixtures("base")
def test_longlive_is_its_base_and_its_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "LongLive" / "models"
    models.mkdir(parents=True)
    named = {f"model.{name}": tensor for name, tensor in network().items()}
    torch.save({"generator": named, "generator_ema": {n: t + 1 for n, t in named.items()}}, models / "longlive_base.pt")
    (models / "config.json").write_text(json.dumps({"num_heads": WAN_DIT.num_heads}))
    layer = "blocks.1.self_attn.v"
    down, up = torch.randn(3, WAN_DIT.dim), torch.randn(WAN_DIT.dim, 3)
    key = f"base_model.model.{layer}"
    torch.save({"generator_lora": {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}}, models / "lora.pt")
    words = ["models", "import", str(tmp_path / "LongLive"), "--student", "longlive", "--base", "wan"]
    assert main([*words, "--precision", "fp32"]) == 0
    told = capsys.readouterr().err
    assert "the network of its entry generator\n" in told
    assert "lora.pt at 1: 1 parameters corrected" in told
    nets = open_nets("longlive", device="cpu")
    assert (nets.preset.stream.window, nets.preset.stream.sink) == (12, 3)
    state = nets.dit.state_dict()
    torch.testing.assert_close(state[f"{layer}.weight"], network()[f"{layer}.weight"] + up @ down)
    assert torch.equal(state["blocks.0.self_attn.v.weight"], network()["blocks.0.self_attn.v.weight"])


@pytest.mark.usefixtures("base")
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = network()
    bad["blocks.1.ffn.0.weight"] = torch.full_like(bad["blocks.1.ffn.0.weight"], torch.nan)
    save_file(bad, tmp_path / "bad.safetensors")
    assert main(["models", "import", str(tmp_path / "bad.safetensors"), "--base", "wan"]) == 2
    assert "blocks.1.ffn.0.weight has values that are not finite" in capsys.readouterr().err
    assert [info.name for info in list_models()][-1] == "wan"


@pytest.mark.parametrize(
    "path", ["", "/", "/blob/main/checkpoints/self_forcing_dmd.pt", "/resolve/main/a/b.pt?download=true"]
)
def test_a_hubs_web_address_is_taken_apart(path: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(repo: str, patterns: tuple[str, ...]) -> Path:
        asked.append((repo, patterns))
        raise WeightsError("no hub here")

    monkeypatch.setattr("longtake.weights.hub.fetch", fetched)
    assert (
        main(
            [
                "models",
                "import",
                f"https://huggingface.co/gdhe17/Self-Forcing{path}",
                "--student",
                "self-forcing",
                "--codec",
                "x",
                "--text",
                "y",
            ]
        )
        == 2
    )
    file = {"": "checkpoints/self_forcing_dmd.pt", "/": "checkpoints/self_forcing_dmd.pt"}.get(path) or path.partition(
        "?"
    )[0].split("/", 3)[3]
    assert asked == [("gdhe17/Self-Forcing", (file,))]
    assert not home.exists() or not list(home.rglob("*.safetensors"))


def test_the_catalogue_names_all_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "catalogue", "--json"]) == 0
    told = {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(told) == {*WANS, *STUDENTS}
    assert told["causal-forcing-2step"]["steps"] == 2
    assert told["causal-forcing-2step"]["first_steps"] == 4
    assert told["krea-14b"]["licence"].startswith("CC BY-NC-SA")
    assert told["krea-14b"]["gib"] > told["self-forcing"]["gib"] > 5
    assert main(["models", "catalogue"]) == 0
    assert "longlive: a student of wan-1.3b\n  4 steps; chunk 3, window 12, sink 3" in capsys.readouterr().out
