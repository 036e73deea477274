"""Wan and its published students: sizes, sampling settings and tensor names."""
