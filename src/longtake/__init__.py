"""Streaming video generation: a prompt, image or video in, frames out while they are made.

studio = longtake.open("tiny-world")
for chunk in studio.take("a red boat on the sea").stream(seconds=10):
    show(chunk.frames)
"""

from types import MappingProxyType
from typing import TYPE_CHECKING

from longtake.core.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from longtake.core.shapes import PictureSize
    from longtake.studio.studio import Studio
    from longtake.weights.live_loras import LoraChoice


def open(  # noqa: A001
    name: str = "tiny-world",
    *,
    size: "PictureSize | None" = None,
    device: str | None = None,
    fp8: bool = False,
    compiled: bool = False,
    loras: "Mapping[str, Path | str | LoraChoice]" = MappingProxyType({}),
) -> "Studio":
    """Open a model to make and direct takes on it.

    Args:
        name: a packaged or imported model, or a model folder.
        size: of the pictures; None: what the model was trained on.
        device: "cpu", "cuda", "cuda:1"; None: the first GPU if there is one.
        fp8: keep the network's linear layers in floats of 8 bits: half their memory, other bits. For large models on
            GPUs that have them (Ada, Hopper and newer).
        compiled: make the network's passes compiled programs, on CUDA recorded as graphs: minutes before the first
            chunks of a process, less time for all after them on a GPU (on a CPU nothing is gained).
        loras: files of LoRAs by the names that cues use, or `LoraChoice`s of a file and a scale; 1 if it is not given.

    Raises:
        WeightsError: the model is unknown, incomplete or damaged, or a LoRA cannot be used.
        DeviceError: the device is not there, its memory is too small, or it lacks what `fp8` or `compiled` need.
        InputError: the size does not fit the model, or there are too many LoRAs.
    """
    from longtake.studio.studio import open_studio  # noqa: PLC0415  (torch: seconds to import)

    return open_studio(name, size=size, device=device, fp8=fp8, compiled=compiled, loras=loras)
