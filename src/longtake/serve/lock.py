"""Lock of a server's folder, because a second server on it would destroy the work of the first."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from longtake.core.errors import InputError

NAME = "server.lock"
OWNER = "server.pid"


class FolderLock:
    """Exclusive use of a folder by this process, until it is released or the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another process has it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # takes and keys are private
        self._lock = FileLock(folder / NAME)
        self._owner = folder / OWNER
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            owner = self._owner.read_text("ascii").strip() if self._owner.exists() else "unknown"
            raise InputError(
                f"another server (process {owner}) uses {folder}; stop it, or give --folder another folder"
            ) from error
        self._owner.write_text(f"{os.getpid()}\n", "ascii")

    def release(self) -> None:
        """Let other servers use the folder."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()
