"""Recognition of weights by their names and shapes alone."""

import re
from collections.abc import Mapping
from itertools import count

from longtake.core.configs import CodecConfig, DiTConfig, WanVAEConfig
from longtake.core.errors import WeightsError
from longtake.weights.wan.presets import TAEW

Shapes = Mapping[str, tuple[int, ...]]

WAN_HEAD_DIM = 128

# Other weights in such folders or mistaken for Wan's: a pattern of their names, a description, and advice.
OTHERS = (
    (r"(vace_blocks|vace_patch_embedding)\.", "a VACE network of Wan's", "it needs inputs that are not given here"),
    (
        r"(img_emb\.|.*\.k_img\.|condition_embedder\.image_embedder)",
        "an image-to-video Wan",
        "give a text-to-video one",
    ),
    (
        r"(encoder\.downsamples|decoder\.upsamples|decoder\.up_blocks)\.",
        "a Wan video autoencoder",
        "give it as --codec",
    ),
    (r"(token_embedding\.|encoder\.block\.0\.|shared\.)", "a UMT5 text encoder", "give its folder as --text"),
    (r"(encoder|decoder)\.\d+\.(weight|conv\.)", "a light codec (TAEHV)", "give it as --codec"),
    (r"(double_blocks|single_transformer_blocks|transformer_blocks|joint_blocks)\.", "a network of another family", ""),
    (r".*(lora_|\.lora)", "a LoRA", "LoRAs of the bidirectional model make no causal student: give a whole network"),
)


def dit_config(shapes: Shapes, num_heads: int | None, source: str) -> DiTConfig:
    """Configuration of a Wan transformer, derived from its tensors' shapes.

    Args:
        shapes: shapes by original Wan names.
        num_heads: number of heads from a config; None: heads of 128 channels.
        source: name of the weights in error messages.

    Raises:
        WeightsError: the weights are something else, which the message describes.
    """
    try:
        dim, in_dim, *_, patch, _ = shapes["patch_embedding.weight"]
        ffn_dim, _ = shapes["blocks.0.ffn.0.weight"]
        _, text_dim = shapes["text_embedding.0.weight"]
        _, freq_dim = shapes["time_embedding.0.weight"]
        num_out, _ = shapes["head.head.weight"]
    except (KeyError, ValueError) as err:
        raise WeightsError(f"{source} is no Wan transformer: {_guess(shapes)}") from err
    if num_out != in_dim * patch**2:
        raise WeightsError(
            f"{source} takes {in_dim} channels and gives {num_out // patch**2}: it is an image-to-video or control "
            "network; give a text-to-video one"
        )
    return DiTConfig(
        dim=dim,
        num_layers=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        num_heads=num_heads or max(1, dim // WAN_HEAD_DIM),
        ffn_dim=ffn_dim,
        text_dim=text_dim,
        text_len=512,
        in_dim=in_dim,
        freq_dim=freq_dim,
        patch=patch,
    )


def codec_config(shapes: Shapes, source: str) -> CodecConfig | WanVAEConfig:
    """Configuration of a codec: Wan's own, under original names, or the light codec made for its latents.

    Raises:
        WeightsError: the weights are neither.
    """
    if "decoder.conv1.weight" in shapes and "conv2.weight" in shapes:
        return _wan_vae(shapes)
    if "decoder.1.weight" in shapes and "encoder.0.weight" in shapes:
        return TAEW
    raise WeightsError(f"{source} is no codec for Wan: {_guess(shapes)}")


def _wan_vae(shapes: Shapes) -> WanVAEConfig:
    """Configuration of a Wan VAE from the layers of its encoder, whose stages end where the resolution changes."""
    base = shapes["encoder.conv1.weight"][0]
    mults, temporal, blocks = [1], [], [0]
    for index in count():
        name = f"encoder.downsamples.{index}."
        if name + "residual.6.weight" in shapes:
            mults[-1] = shapes[name + "residual.6.weight"][0] // base
            blocks[-1] += 1
        elif name + "resample.1.weight" in shapes:
            temporal.append(name + "time_conv.weight" in shapes)
            mults.append(mults[-1])
            blocks.append(0)
        else:
            break
    return WanVAEConfig(
        latent_channels=shapes["conv2.weight"][0],
        base_dim=base,
        dim_mult=tuple(mults),
        num_res_blocks=blocks[0],
        temporal_downsample=tuple(temporal),
    )


def _guess(shapes: Shapes) -> str:
    """Description of what a set of names looks like; for unknown ones, with an example."""
    for pattern, name, advice in OTHERS:
        if any(re.match(pattern, key) for key in shapes):
            return f"it looks like {name}" + (f"; {advice}" if advice else "")
    return f"nothing known has such names (e.g. {next(iter(shapes), 'none at all')})"
