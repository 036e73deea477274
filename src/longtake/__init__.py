"""Streaming video generation: a prompt, image or video in, frames out while they are made."""

__version__ = "0.1.0"
