"""Common interface of the codecs: `encode` and `decode` of the next piece, with a state in and out; `config.stride`."""

from longtake.core.configs import CoarseCodecConfig, CodecConfig, WanVAEConfig
from longtake.nets.coarse_codec import CoarseCodec
from longtake.nets.light_codec import LightCodec
from longtake.nets.wan_vae import WanVAE

Codec = LightCodec | CoarseCodec | WanVAE
CodecSettings = CodecConfig | CoarseCodecConfig | WanVAEConfig


def codec_for(config: CodecSettings) -> Codec:
    """Create a codec of this configuration, before its weights are loaded."""
    if isinstance(config, CoarseCodecConfig):
        return CoarseCodec(config)
    return LightCodec(config) if isinstance(config, CodecConfig) else WanVAE(config)
