"""Names of Wan's parameters: the original names are used here; diffusers' are translated, wrappers' parts removed."""

import re
from collections.abc import Mapping
from typing import TypeVar

from longtake.core.errors import WeightsError

T = TypeVar("T")

# Parts that training frameworks insert anywhere in names, and prefixes that wrappers of a model add.
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "module.")
PREFIXES = (
    *("model.diffusion_model.", "diffusion_model.", "generator.model.", "model.", "net."),
    *("pipe.dit.", "transformer.", "dit."),
)
GENERATORS = ("generator_ema", "generator")  # keys of the student in a file written by its training, best first
# Keys of tensors in files of several entries, best first.
CONTAINERS = (*GENERATORS, "model", "module", "state_dict", "generator_lora")
EXTRAS = (
    "_cls_pred_branch.",
    "_register_tokens",
    "_gan_ca_blocks.",
    "freqs",
)  # parameters of a GAN's critic and a table, which the network here does not have

# Original name -> diffusers' name, outside the blocks and inside a block, without ".weight" and ".bias".
OUTSIDE = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
INSIDE = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{
        f"{ours}.{part}": f"{theirs}.{its}"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part, its in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
}
PARTS = re.compile(r"(?P<block>blocks\.\d+\.)?(?P<stem>.+?)(?P<kind>\.weight|\.bias)?")


def original_name(name: str) -> str:
    """The original Wan name of a parameter of diffusers' `WanTransformer3DModel`; original names are unchanged."""
    return _renamed(name, _turned(OUTSIDE), _turned(INSIDE))


def diffusers_name(name: str) -> str:
    """The diffusers name of a parameter with an original Wan name."""
    return _renamed(name, OUTSIDE, INSIDE)


def peeled(name: str) -> str:
    """A name without the parts that wrappers have added.

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
    """Tensors under their original Wan names, from any published naming; tensors in `EXTRAS` are left out.

    Raises:
        WeightsError: the tensors are a LoRA, or two of them would get the same name.
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


# Diffusers' name -> original name in the video autoencoder, applied in this order: inside the blocks, then around them.
VAE = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"\.norm1\.", ".residual.0."),
        (r"\.conv1\.", ".residual.2."),
        (r"\.norm2\.", ".residual.3."),
        (r"\.conv2\.", ".residual.6."),
        (r"\.conv_shortcut\.", ".shortcut."),
        (r"\.conv_in\.", ".conv1."),
        (r"\.norm_out\.", ".head.0."),
        (r"\.conv_out\.", ".head.2."),
        (r"\.mid_block\.resnets\.0\.", ".middle.0."),
        (r"\.mid_block\.attentions\.0\.", ".middle.1."),
        (r"\.mid_block\.resnets\.1\.", ".middle.2."),
        (r"\.down_blocks\.", ".downsamples."),
        (r"^quant_conv\.", "conv1."),
        (r"^post_quant_conv\.", "conv2."),
    )
)
VAE_UP = re.compile(r"\.up_blocks\.(\d+)\.(?:resnets\.(\d+)|upsamplers\.0)\.")  # decoder stages, originally one list


def vae_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors of a Wan video autoencoder under their original names, from original or diffusers' names."""
    if "decoder.conv_in.weight" not in tensors:
        return dict(tensors)
    blocks = 1 + max(int(up[2]) for key in tensors if (up := VAE_UP.search(key)) and up[2])

    def place(up: re.Match[str]) -> str:
        return f".upsamples.{int(up[1]) * (blocks + 1) + int(up[2] or blocks)}."

    renamed: dict[str, T] = {}
    for key, tensor in tensors.items():
        name = VAE_UP.sub(place, key)
        for theirs, ours in VAE:
            name = theirs.sub(ours, name)
        renamed[name] = tensor
    return renamed


def _renamed(name: str, outside: Mapping[str, str], inside: Mapping[str, str]) -> str:
    parts = PARTS.fullmatch(name)
    if parts is None:
        return name
    block, stem, kind = parts["block"] or "", parts["stem"], parts["kind"] or ""
    return f"{block}{(inside if block else outside).get(stem, stem)}{kind}"


def _turned(table: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}
