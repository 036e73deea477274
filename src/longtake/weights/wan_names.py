"""Names of Wan's parameters: the original ones are ours, those of diffusers are translated, wrappers are peeled off."""

import re
from collections.abc import Mapping
from typing import TypeVar

from longtake.core.errors import WeightsError

T = TypeVar("T")

# What training frameworks leave in names, anywhere; and what wrappers of a model put in front.
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "module.")
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "generator.model.", "model.", "net.")
CONTAINERS = ("generator_ema", "generator", "model", "state_dict")  # of a file with several networks, best first
EXTRAS = (
    "_cls_pred_branch.",
    "_register_tokens",
    "_gan_ca_blocks.",
    "freqs",
)  # of a GAN's critic, of a table: not ours

# diffusers -> original, in order; "norm2" comes before what would make another one.
FROM_DIFFUSERS = (
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
    (r"^(blocks\.\d+)\.ffn\.net\.0\.proj\.", r"\1.ffn.0."),
    (r"^(blocks\.\d+)\.ffn\.net\.2\.", r"\1.ffn.2."),
    (r"^(blocks\.\d+)\.attn1\.", r"\1.self_attn."),
    (r"^(blocks\.\d+)\.attn2\.", r"\1.cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
)
TO_DIFFUSERS = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"^(blocks\.\d+)\.norm3\.", r"\1.norm2."),
    (r"^(blocks\.\d+)\.ffn\.0\.", r"\1.ffn.net.0.proj."),
    (r"^(blocks\.\d+)\.ffn\.2\.", r"\1.ffn.net.2."),
    (r"\.self_attn\.o\.", ".attn1.to_out.0."),
    (r"\.cross_attn\.o\.", ".attn2.to_out.0."),
    (r"\.self_attn\.([qkv])\.", r".attn1.to_\1."),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
)


def original_name(name: str) -> str:
    """The original Wan name of a parameter of diffusers' `WanTransformer3DModel`; original names stay."""
    return _renamed(name, FROM_DIFFUSERS)


def diffusers_name(name: str) -> str:
    """The name in diffusers of an original Wan parameter."""
    return _renamed(name, TO_DIFFUSERS)


def peeled(name: str) -> str:
    """A name without what wrappers have put into it.

    >>> peeled("model._fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.ffn.0.weight")
    'blocks.0.ffn.0.weight'
    """
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def wan_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors under their original Wan names, whatever they were called; what belongs to no network is left out.

    Raises:
        WeightsError: it is a LoRA; or two tensors would get the same name.
    """
    found: dict[str, T] = {}
    for key, tensor in tensors.items():
        name = peeled(key)
        if "lora_" in name or ".lora" in name:
            raise WeightsError(
                f"this is a LoRA ({key}), not a whole network; LoRAs that were distilled for the bidirectional model "
                "do not make a causal student: import a checkpoint of a causal one"
            )
        if name.startswith(EXTRAS):
            continue
        name = original_name(name)
        if name in found:
            raise WeightsError(f"two tensors of this file would be called {name}; is it one network?")
        found[name] = tensor
    return found


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
