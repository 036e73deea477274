"""The published names of UMT5-XXL, spelled out, against transformers at full size."""

import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel

from longtake.core.errors import WeightsError
from longtake.weights.wan.umt5_names import UMT5_XXL, umt5_tensors

BLOCK = (
    ("norm1.weight", "layer.0.layer_norm.weight"),
    ("attn.q.weight", "layer.0.SelfAttention.q.weight"),
    ("attn.k.weight", "layer.0.SelfAttention.k.weight"),
    ("attn.v.weight", "layer.0.SelfAttention.v.weight"),
    ("attn.o.weight", "layer.0.SelfAttention.o.weight"),
    ("pos_embedding.embedding.weight", "layer.0.SelfAttention.relative_attention_bias.weight"),
    ("norm2.weight", "layer.1.layer_norm.weight"),
    ("ffn.gate.0.weight", "layer.1.DenseReluDense.wi_0.weight"),
    ("ffn.fc1.weight", "layer.1.DenseReluDense.wi_1.weight"),
    ("ffn.fc2.weight", "layer.1.DenseReluDense.wo.weight"),
)
NAMES = {
    "token_embedding.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
    **{f"blocks.{n}.{ours}": f"encoder.block.{n}.{theirs}" for n in range(24) for ours, theirs in BLOCK},
}


def test_the_published_names_are_those_of_transformers_at_full_size() -> None:
    sizes = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with torch.device("meta"):
        theirs = UMT5EncoderModel(UMT5Config(**{**UMT5_XXL, **sizes}))
    named = umt5_tensors({name: name for name in NAMES})
    assert {ours: theirs for theirs, ours in named.items()} == NAMES
    wanted = {name: p for name, p in theirs.state_dict().items() if name != "encoder.embed_tokens.weight"}
    assert named.keys() == wanted.keys()
    assert len(named) == 242
    assert sum(p.numel() for p in wanted.values()) == 5_680_910_336


def test_a_name_of_no_encoder_is_told() -> None:
    with pytest.raises(WeightsError, match=r"no UMT5 encoder.*it holds blocks\.0\.cross_attn\.q\.weight"):
        umt5_tensors({"blocks.0.cross_attn.q.weight": 0})
