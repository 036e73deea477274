"""Names of UMT5's encoder: translation of those in Wan's original file to those of transformers."""

import re
from collections.abc import Mapping
from typing import TypeVar

from longtake.core.errors import WeightsError

T = TypeVar("T")

# Entries of config.json other than the sizes, which follow from the tensors' shapes.
UMT5_XXL = {
    "architectures": ["UMT5EncoderModel"],
    "model_type": "umt5",
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "is_encoder_decoder": True,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": 0.0,
    "tie_word_embeddings": True,  # "shared" and the encoder's own embedding are one tensor
    "pad_token_id": 0,
    "eos_token_id": 1,
}

OUTSIDE = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
INSIDE = {
    "norm1": "layer.0.layer_norm",
    **{f"attn.{part}": f"layer.0.SelfAttention.{part}" for part in "qkvo"},
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def umt5_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors under the names that transformers gives them.

    Raises:
        WeightsError: a name is not one of such an encoder.
    """
    return {_renamed(key): tensor for key, tensor in tensors.items()}


def _renamed(key: str) -> str:
    stem = key.removesuffix(".weight")
    block = BLOCK.fullmatch(stem)
    name = OUTSIDE.get(stem) if block is None else INSIDE.get(block[2])
    if name is None:
        raise WeightsError(f"this is no UMT5 encoder as published with Wan: it holds {key}")
    return f"{name}.weight" if block is None else f"encoder.block.{block[1]}.{name}.weight"
