"""Wan and the students published for it: sizes, sampling, names of tensors."""
