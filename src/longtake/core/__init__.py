"""Definitions that every other package uses: shapes, sizes, configurations, errors, noise keys, timing."""
