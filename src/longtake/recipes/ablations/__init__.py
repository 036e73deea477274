"""Ablations: recipes that each change one aspect of self-forcing, compared in docs/evaluation.md."""
