"""The command line `longtake`. Torch is imported only by commands that need it, when they run."""

import sys
import time

STARTED_S = time.perf_counter()  # when the command began, up to the start of the interpreter


def show_notice(text: str) -> None:
    """Show a line on the terminal until the next one; an empty text removes it. Nothing where stderr is no terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
