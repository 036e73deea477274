"""Atomic writing of files: they appear whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block ends and removed when it fails.

    Several processes may write the same file at once: each has its own temporary path, and the last to end wins.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
