"""MiniLM-L6 (Wang et al. 2020), a BERT encoder of 6 layers, from token ids to one state per token.

It uses torch's encoder layers, because importing `transformers` takes longer than making the first frames.
"""

import json
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from longtake.core.errors import WeightsError

# Names in BERT's checkpoints -> names in torch's encoder layer, which holds q, k and v projections in one matrix.
LAYER = {
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}


class MiniLM(nn.Module):
    """MiniLM: embeddings of tokens and positions, then post-norm transformer layers."""

    def __init__(
        self, *, vocab_size: int, positions: int, width: int, heads: int, ffn: int, layers: int, eps: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(positions, width)  # `load` adds the type embedding of sentence 0
        self.norm = nn.LayerNorm(width, eps=eps)
        layer = nn.TransformerEncoderLayer(
            width, heads, ffn, dropout=0.0, activation="gelu", layer_norm_eps=eps, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    @property
    def device(self) -> torch.device:
        return self.tokens.weight.device

    @classmethod
    def load(cls, folder: Path) -> "MiniLM":
        """Load an encoder from a folder in the Hugging Face layout: `config.json`, `model.safetensors`.

        Raises:
            WeightsError: a file is missing, damaged, or of another network.
        """
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            net = cls(
                vocab_size=config["vocab_size"],
                positions=config["max_position_embeddings"],
                width=config["hidden_size"],
                heads=config["num_attention_heads"],
                ffn=config["intermediate_size"],
                layers=config["num_hidden_layers"],
                eps=config["layer_norm_eps"],
            )
            net.load_state_dict(_renamed(load_file(folder / "model.safetensors"), config["num_hidden_layers"]))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(f"the text encoder in {folder} cannot be read: {error}") from error
        return net.eval().requires_grad_(requires_grad=False)

    def forward(self, ids: Int[Tensor, "p t"], used: Int[Tensor, "p t"]) -> Float[Tensor, "p t e"]:
        """States of prompts; `used` is 1 for tokens and 0 for padding."""
        x = self.norm(self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))
        return self.layers(x, src_key_padding_mask=used == 0)


def _renamed(published: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Convert a BERT checkpoint to fp32 tensors under the names of `MiniLM`."""
    embeddings = "embeddings"
    found = {
        "tokens.weight": published[f"{embeddings}.word_embeddings.weight"],
        "positions.weight": published[f"{embeddings}.position_embeddings.weight"]
        + published[f"{embeddings}.token_type_embeddings.weight"][0],
    }
    for part in ("weight", "bias"):
        found[f"norm.{part}"] = published[f"{embeddings}.LayerNorm.{part}"]
        for i in range(layers):
            theirs, ours = f"encoder.layer.{i}", f"layers.layers.{i}"
            heads = [published[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            found[f"{ours}.self_attn.in_proj_{part}"] = torch.cat(heads)
            for name, own in LAYER.items():
                found[f"{ours}.{own}.{part}"] = published[f"{theirs}.{name}.{part}"]
    return {name: tensor.float() for name, tensor in found.items()}
