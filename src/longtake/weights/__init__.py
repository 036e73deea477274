"""Weights of models: storage, import, memory planning and loading into nets."""
