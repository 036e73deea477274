"""Storage of the latents of all chunks on disk, from which every frame can be decoded again."""

import shutil
import tempfile
from pathlib import Path
from weakref import WeakKeyDictionary, finalize

import numpy as np
import torch

from longtake.core.errors import MediaError
from longtake.core.shapes import Latent
from longtake.media.targets import reason
from longtake.studio.timeline import Node


class Spool:
    """Temporary folder with one fp32 file per chunk; files are removed with their chunks, the folder with the spool."""

    def __init__(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="longtake-"))
        except OSError as error:
            raise MediaError(f"no temporary folder: {reason(error)}; set TMPDIR to another") from error
        self._paths: WeakKeyDictionary[Node, Path] = WeakKeyDictionary()
        self._num_written = 0
        self._remove = finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder."""
        self._remove()

    def write(self, node: Node, latent: Latent) -> None:
        """Write the latents of a chunk.

        Raises:
            MediaError: the disk is full, or the folder is gone.
        """
        path = self.folder / f"{self._num_written}.npy"
        try:
            np.save(path, latent.float().cpu().numpy())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise MediaError(
                f"the chunk cannot be kept in {self.folder}: {reason(error)}; free some space (or set TMPDIR to "
                "another disk) and go on, the take stands where it stood"
            ) from error
        self._num_written += 1
        self._paths[node] = path
        finalize(node, path.unlink, missing_ok=True)

    def read(self, node: Node) -> Latent:
        """Read the latents of a chunk, fp32 on the CPU.

        Raises:
            MediaError: the file is gone.
        """
        try:
            return torch.from_numpy(np.load(self._paths[node]))
        except (OSError, ValueError, KeyError) as error:
            raise MediaError(f"chunk {node.idx} is no longer in {self.folder}; replay the take's script") from error
