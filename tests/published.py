"""Wan as it is published, but small: folders of both layouts with random weights, tokenizer included."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.torch import save_file
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from longtake.core.configs import WanVAEConfig
from longtake.nets.wan_vae import WanVAE
from longtake.weights.checkpoint import write_json
from longtake.weights.wan.names import diffusers_name
from longtake.weights.wan.umt5_names import BLOCK, INSIDE, OUTSIDE
from tests.tiny import DIT, random_dit, shake

WIDTH = 32  # of the text states
WAN_DIT = replace(DIT, in_dim=16, text_dim=WIDTH, text_len=512)
WAN_VAE = WanVAEConfig(base_dim=4)
WORDS = ("a", "red", "boat", "on", "the", "sea", "night", "falls")


def network(seed: int = 0) -> dict[str, Tensor]:
    return dict(random_dit(WAN_DIT, seed, torch.float32).state_dict())


def autoencoder() -> WanVAE:
    torch.manual_seed(0)
    net = WanVAE(WAN_VAE)
    shake(net)
    return net


def text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=64,
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    model = UMT5EncoderModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


def write_tokenizer(folder: Path) -> None:
    """Words, one number each, and the end of the sequence."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)


def original(folder: Path) -> Path:
    """As Wan-AI/Wan2.1-T2V-1.3B has it."""
    folder.mkdir(parents=True)
    save_file(network(), folder / "diffusion_pytorch_model.safetensors")
    write_json(folder / "config.json", {"num_heads": WAN_DIT.num_heads})
    torch.save(autoencoder().state_dict(), folder / "Wan2.1_VAE.pth")
    torch.save(original_text(text_encoder().state_dict()), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def diffusers(folder: Path) -> Path:
    """As Wan-AI/Wan2.1-T2V-1.3B-Diffusers has it."""
    for part in ("transformer", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
    renamed = {diffusers_name(name): t for name, t in network().items()}
    save_file(renamed, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_json(folder / "transformer" / "config.json", {"num_attention_heads": WAN_DIT.num_heads})
    vae = convert_wan_vae_to_diffusers(dict(autoencoder().state_dict()))
    save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    text_encoder().save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    return folder


def original_text(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers' UMT5 under the names of Wan's authors."""
    outside = {theirs: ours for ours, theirs in OUTSIDE.items()}
    inside = {theirs: ours for ours, theirs in INSIDE.items()}
    named = {}
    for key, tensor in tensors.items():
        stem = key.removesuffix(".weight")
        if stem == "encoder.embed_tokens":
            continue  # the same tensor as "shared"
        if stem in outside:
            named[f"{outside[stem]}.weight"] = tensor.clone()
            continue
        _, _, number, part = stem.split(".", 3)
        named[f"blocks.{number}.{inside[part]}.weight"] = tensor.clone()
    assert all(BLOCK.fullmatch(key.removesuffix(".weight")) or key.split(".")[0] in OUTSIDE for key in named)
    return named
