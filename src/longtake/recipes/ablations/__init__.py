"""Recipes that each change one thing of self-forcing; compared in docs/evaluation.md."""
