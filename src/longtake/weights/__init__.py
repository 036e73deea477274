"""Checkpoints in and out of nets."""
