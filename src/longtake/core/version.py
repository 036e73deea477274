"""Version of the package, which is also written into files."""

__version__ = "0.1.0"
