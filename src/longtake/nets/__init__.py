"""Neural networks: the diffusion transformer and its K/V cache, the codecs, the text encoders."""
