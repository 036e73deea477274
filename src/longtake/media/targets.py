"""Where a file is going to be: checked before work starts, replaced in one step when it is done."""

from dataclasses import dataclass
from pathlib import Path

from longtake.core.errors import MediaError


@dataclass(frozen=True, slots=True)
class Target:
    """The name a finished file will have, and the name it grows under until then.

    Both lie in one folder, so that the last step is a rename: whoever opens `path` finds the whole new file, or what
    was there before, never a part.
    """

    path: Path

    @property
    def growing_path(self) -> Path:
        """`first-take.mp4` grows as `first-take.part.mp4`."""
        return self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")

    @property
    def sealing_path(self) -> Path:
        """Where the final form is put together before it takes the final name."""
        return self.path.with_name(f"{self.path.stem}.seal{self.path.suffix}")

    def prepare(self) -> None:
        """Make the folder, and find out now whether the file can be written there.

        Raises:
            MediaError: the path is a folder, or its folder cannot be made or written to.
        """
        if self.path.is_dir():
            raise MediaError(f"{self.path} is a folder; name a file in it, for example {self.path / 'take.mp4'}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # opening is the only honest test: root passes every permission check and still fails on a read-only disk
            with self.growing_path.open("wb"):
                pass
        except OSError as error:
            raise MediaError(f"cannot write {self.path}: {reason(error)}; choose another path") from error

    def commit(self, finished: Path) -> None:
        """Give `finished` the final name, replacing what had it.

        Raises:
            MediaError: the rename failed.
        """
        try:
            finished.replace(self.path)
        except OSError as error:
            raise MediaError(f"cannot put {finished} in place of {self.path}: {reason(error)}") from error

    def discard(self) -> None:
        """Remove whatever is unfinished. What has the final name stays."""
        self.growing_path.unlink(missing_ok=True)
        self.sealing_path.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Refuse a path that could not be written later, and leave nothing behind.

    Raises:
        MediaError: see `Target.prepare`.
    """
    target = Target(path)
    target.prepare()
    target.discard()


def reason(error: Exception) -> str:
    """What the system says is wrong, in lower case and without numbers: "no space left on device"."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
