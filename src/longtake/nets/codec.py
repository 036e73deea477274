"""The codecs behind one interface: `encode` and `decode` of the next piece, state in and out, `config.stride`."""

from longtake.core.configs import CodecConfig, WanVAEConfig
from longtake.nets.light_codec import LightCodec
from longtake.nets.wan_vae import WanVAE

Codec = LightCodec | WanVAE


def codec_for(config: CodecConfig | WanVAEConfig) -> Codec:
    """A codec of this configuration, its weights not yet read."""
    return LightCodec(config) if isinstance(config, CodecConfig) else WanVAE(config)
