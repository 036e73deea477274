"""Paths of output files: checked before work starts, replaced atomically at the end."""

from dataclasses import dataclass
from pathlib import Path

from longtake.core.errors import MediaError


@dataclass(frozen=True, slots=True)
class Target:
    """Final path of an output file, and the temporary paths it is written under.

    All are in one folder, so that the last step is a rename: `path` holds the earlier file or the complete new one,
    never a part.
    """

    path: Path

    @property
    def growing_path(self) -> Path:
        """Temporary path while frames arrive: `first-take.part.mp4` for `first-take.mp4`."""
        return self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")

    @property
    def sealing_path(self) -> Path:
        """Temporary path of the final form before it is renamed."""
        return self.path.with_name(f"{self.path.stem}.seal{self.path.suffix}")

    def prepare(self) -> None:
        """Create the folder and an empty temporary file, to check now that the path can be written.

        Raises:
            MediaError: the path is a folder, or its folder cannot be created or written to.
        """
        if self.path.is_dir():
            raise MediaError(f"{self.path} is a folder; name a file in it, for example {self.path / 'take.mp4'}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Opening a file is the only reliable test: for root, permission checks pass even on a read-only disk.
            with self.growing_path.open("wb"):
                pass
        except OSError as error:
            raise MediaError(f"cannot write {self.path}: {reason(error)}; choose another path") from error

    def commit(self, finished: Path) -> None:
        """Rename `finished` to the final path, replacing an earlier file.

        Raises:
            MediaError: the rename failed.
        """
        try:
            finished.replace(self.path)
        except OSError as error:
            raise MediaError(f"cannot put {finished} in place of {self.path}: {reason(error)}") from error

    def discard(self) -> None:
        """Remove the temporary files; a file at the final path is untouched."""
        self.growing_path.unlink(missing_ok=True)
        self.sealing_path.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Check that a path can be written, without leaving files behind.

    Raises:
        MediaError: see `Target.prepare`.
    """
    target = Target(path)
    target.prepare()
    target.discard()


def reason(error: Exception) -> str:
    """Message of an error in lower case, without its number: "no space left on device"."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
