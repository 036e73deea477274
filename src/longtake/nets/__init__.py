"""Learned functions: the transformer, its memory, the codec, the text encoder."""
