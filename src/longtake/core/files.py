"""Files that appear whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """A path to write to, beside `path`. It takes that name when the block ends; when the block fails, it is removed.

    Several processes may write the same file at once: each has a path of its own, and the last one to end wins.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
