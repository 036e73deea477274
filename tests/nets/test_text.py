"""Prompts as the network reads them: the packaged encoder itself, no stand-in."""

import pytest
import torch

from longtake.nets.text import MiniLMEncoder

LENGTH = 16


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(LENGTH)


def test_a_prompt_becomes_rows_of_states(encoder: MiniLMEncoder) -> None:
    states = encoder("a tiger walks through a forest")
    assert states.shape == (1, 1, LENGTH, MiniLMEncoder.dim)
    assert states.dtype is torch.float32
    assert states.device.type == "cpu"
    assert not states.requires_grad


@pytest.mark.parametrize("prompt", ["", "a tiger", "a tiger walks through a forest", "snow! snow? snow..."])
def test_rows_beyond_the_prompt_are_zero(encoder: MiniLMEncoder, prompt: str) -> None:
    states, num = encoder(prompt)[0, 0], encoder.num_tokens(prompt)
    assert (states[:num].abs().amax(-1) > 0).all()
    assert torch.equal(states[num:], torch.zeros_like(states[num:]))


def test_the_empty_prompt_is_the_two_special_tokens(encoder: MiniLMEncoder) -> None:
    assert encoder.num_tokens("") == 2
    states = encoder("")[0, 0]
    assert (states.abs().amax(-1) > 0).sum() == 2
    assert (states - encoder("a tiger")[0, 0]).abs().max() > 0.1


def test_a_long_prompt_is_cut_at_the_rows_there_are(encoder: MiniLMEncoder) -> None:
    long = "a tiger walks through a forest and " * 40
    assert encoder.num_tokens(long) > LENGTH
    states = encoder(long)[0, 0]
    assert states.shape == (LENGTH, MiniLMEncoder.dim)
    assert (states.abs().amax(-1) > 0).all()
    more = encoder(long + "then it snows")[0, 0]
    assert torch.equal(states, more)  # what lies beyond the cut is not read


def test_a_prompt_alone_equals_the_prompt_among_others(encoder: MiniLMEncoder) -> None:
    prompts = ["a tiger", "", "a red car drives to the left in the desert at night"]
    together = torch.stack(list(encoder.each(prompts)))
    assert together.shape == (3, LENGTH, MiniLMEncoder.dim)
    for prompt, states in zip(prompts, together, strict=True):
        assert (encoder(prompt)[0, 0] - states).abs().max() < 1e-5


def test_a_prompt_is_encoded_once(encoder: MiniLMEncoder) -> None:
    first, again = encoder("an elephant on a street"), encoder("an elephant on a street")
    assert first.data_ptr() == again.data_ptr()
    assert encoder("an elephant on a road").data_ptr() != first.data_ptr()


def test_two_encoders_agree_bit_for_bit(encoder: MiniLMEncoder) -> None:
    assert torch.equal(MiniLMEncoder(LENGTH)("a penguin hops"), encoder("a penguin hops"))


def test_words_change_the_states_of_their_own_rows_most(encoder: MiniLMEncoder) -> None:
    tiger, rabbit = encoder("a tiger walks")[0, 0], encoder("a rabbit walks")[0, 0]
    apart = (tiger - rabbit).norm(dim=-1)
    assert int(apart.argmax()) == 2  # [CLS] a TIGER walks [SEP]


def test_any_text_can_be_read(encoder: MiniLMEncoder) -> None:
    for prompt in ("  ", "猫が走る", "🐯", "a" * 2000, "tiger\x00forest"):
        assert encoder(prompt).isfinite().all()
