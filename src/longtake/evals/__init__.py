"""Evaluation of models: adherence to prompts, change over time, and comparison with the rendered truth."""
