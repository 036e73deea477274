"""Sampling: from prompts to chunks of latents and their frames."""
