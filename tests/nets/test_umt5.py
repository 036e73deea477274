"""The large text encoder, small: in bytes, dropped and read again, its states on disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from longtake.core.errors import WeightsError
from longtake.nets.text import Int8Linear, UMT5Encoder, cleaned
from tests.published import WIDTH, text_encoder, write_tokenizer

LENGTH = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text")
    text_encoder().save_pretrained(path)
    write_tokenizer(path)
    return path


def encoder(folder: Path, cache: Path, *, int8: bool = False, keep: bool = True) -> UMT5Encoder:
    return UMT5Encoder(folder, LENGTH, cache=cache, dtype=torch.float32, int8=int8, keep=keep)


def test_states_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    states = encoder(folder, tmp_path)("a red boat")[0, 0]
    with torch.no_grad():
        theirs = text_encoder()(input_ids=torch.tensor([[3, 4, 5, 1]])).last_hidden_state[0]
        padded = torch.tensor([[3, 4, 5, 1, 0, 0]])
        masked = text_encoder()(input_ids=padded, attention_mask=padded.ne(0)).last_hidden_state[0, :4]
    assert states.shape == (LENGTH, WIDTH)
    assert (states[:4] - theirs).abs().max() < 1e-5
    assert (states[:4] - masked).abs().max() < 1e-4  # as Wan reads them: padded to 512 rows, with a mask
    assert not states[4:].any()


def test_a_prompt_on_disk_needs_no_network(folder: Path, tmp_path: Path) -> None:
    first = encoder(folder, tmp_path)("the sea")
    again = encoder(folder, tmp_path)
    assert torch.equal(again("the sea"), first)
    assert "_model" not in vars(again)
    again("the boat")
    assert "_model" in vars(again)


def test_many_prompts_are_those_one_by_one_and_memory_is_given_back(folder: Path, tmp_path: Path) -> None:
    many, one = encoder(folder, tmp_path / "a"), encoder(folder, tmp_path / "b")
    prompts = ["a red boat", "", "night falls on the sea"]
    assert torch.equal(torch.stack(list(many.each(prompts))), torch.cat([one(prompt)[0] for prompt in prompts]))
    assert "_model" not in many.__dict__
    assert "_model" in one.__dict__


def test_a_damaged_state_is_made_anew(folder: Path, tmp_path: Path) -> None:
    first = encoder(folder, tmp_path)("the sea")
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"half")
    assert torch.equal(encoder(folder, tmp_path)("the sea"), first)


def test_a_network_that_does_not_stay_is_read_again(folder: Path, tmp_path: Path) -> None:
    fleeting = encoder(folder, tmp_path, keep=False)
    fleeting("the sea")
    assert "_model" not in vars(fleeting)
    assert torch.isfinite(fleeting("the boat")).all()


def test_bytes_say_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    exact = encoder(folder, tmp_path / "exact")("a red boat on the sea")
    in_bytes = encoder(folder, tmp_path / "bytes", int8=True)("a red boat on the sea")
    assert 0 < (in_bytes - exact).norm() < 0.1 * exact.norm()


def test_a_layer_of_bytes_is_within_half_a_step() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False)
    small = Int8Linear(layer)
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert ((small.weight * small.scale - layer.weight).abs() <= 0.501 * step).all()
    assert small.weight.dtype is torch.int8


def test_prompts_are_cleaned_as_in_training() -> None:
    assert cleaned("  a  red\n boat &amp;amp; the sea ") == "a red boat & the sea"
    assert cleaned("the cafÃ©") == "the café"


def test_a_missing_encoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer in .* cannot be read"):
        UMT5Encoder(tmp_path, LENGTH, cache=tmp_path)
    write_tokenizer(tmp_path / "bare")
    with pytest.raises(WeightsError, match=r"text encoder in .* cannot be read"):
        encoder(tmp_path / "bare", tmp_path)("the sea")
