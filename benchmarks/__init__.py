"""Measurements of speed and memory. Everything is included: text, denoising, clean pass, decode, H.264."""
