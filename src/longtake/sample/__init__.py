"""Prompt to chunks of latents to frames."""
