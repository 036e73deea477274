"""The text encoder is BERT's network with MiniLM's weights: transformers, given the same files, agrees."""

from pathlib import Path

import pytest
import torch

from longtake.core.errors import WeightsError
from longtake.nets.minilm import MiniLM
from longtake.nets.text import MiniLMEncoder, minilm_folder


@pytest.mark.golden
def test_states_and_tokens_are_those_of_transformers() -> None:
    from transformers import AutoTokenizer, BertModel

    prompts = ["a tiger walks through a forest", "", "It's SNOWING, then\tthe sun sets: 12 boats!", "tree " * 60]
    tokens = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)(
        prompts, padding=True, truncation=True, max_length=32, return_tensors="pt"
    )
    published = BertModel.from_pretrained(minilm_folder(), local_files_only=True, dtype=torch.float32).eval()
    mask = tokens["attention_mask"]
    with torch.no_grad():
        states = published(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state * mask[..., None]
    ours = MiniLMEncoder(32).encode(prompts)
    assert (ours[:, : states.shape[1]] - states).abs().max() < 2e-5
    assert MiniLMEncoder(32).num_tokens(prompts[0]) == int(mask[0].sum())


def test_a_folder_without_an_encoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        MiniLM.load(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 10}')
    with pytest.raises(WeightsError, match="cannot be read"):
        MiniLM.load(tmp_path)
