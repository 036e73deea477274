"""Entry point of the studio: an opened model on which takes are made and directed.

    studio = longtake.open("tiny-world")
    take = studio.take("a red boat on the sea", seed=7)
    for chunk in take.stream(seconds=10):
        show(chunk.frames)
        if chunk.index == 4:
            receipt = take.cue("night falls")

Steps are made one at a time for all threads; a take may be cued from any thread while another one streams it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtake.core.errors import InputError
from longtake.core.shapes import Pictures, PictureSize
from longtake.media.clips import Fit, read_video, stream_video
from longtake.sample.model import Model, open_model
from longtake.studio.controller import TakeController
from longtake.studio.engine import Engine
from longtake.studio.script import Script, resumed_state, state_of
from longtake.studio.session import TakeState
from longtake.studio.sources import IteratorSource, Source
from longtake.studio.takes import Take
from longtake.studio.timeline import Clock
from longtake.weights.live_loras import LoraChoice

MiB = 1024**2


class Studio:
    """Opened model that makes takes. Close it (or use it as a context manager) to remove its temporary files."""

    def __init__(
        self,
        model: Model,
        *,
        size: PictureSize | None = None,
        snapshot_mib: int = 512,
        device_snapshot_mib: int | None = None,
    ) -> None:
        """Create a studio.

        Args:
            model: a student.
            size: picture size; None: the size that the model was trained on.
            snapshot_mib: MiB of host memory for snapshots; evicted ones are recomputed at a rewind.
            device_snapshot_mib: MiB of GPU memory for snapshots, used before the host's; None: what the memory plan
                leaves free.
        """
        on_device = model.plan.spare_bytes if device_snapshot_mib is None else device_snapshot_mib * MiB
        self.engine = Engine(model, size, host_bytes=snapshot_mib * MiB, device_bytes=on_device)

    @property
    def model(self) -> Model:
        return self.engine.model

    @property
    def fps(self) -> float:
        return self.model.fps

    @property
    def size(self) -> PictureSize:
        return self.engine.size

    @property
    def clock(self) -> Clock:
        return self.engine.clock

    def take(
        self,
        prompt: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        loras: Mapping[str, float] | None = None,
    ) -> Take:
        """Create a take; nothing is computed before it is streamed.

        Args:
            prompt: the opening prompt.
            seed: an integer, at most 2^53.
            steps: denoising steps per chunk; None: the model's default.
            guidance: guidance scale, see `Take.cue`; None: 1.
            negative_prompt: prompt that guidance leads away from; None: the model's default.
            loras: scales of LoRAs that the model was opened with, by name; None: those it was opened with.

        Raises:
            InputError: the prompt is empty or too long, a number is out of range, or a LoRA is unknown.
        """
        settings = {"seed": seed, "steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
        return self._take(self.engine.begin(prompt, **settings, loras=loras))

    def animate(
        self, image: Path | str | Pictures, prompt: str, *, seed: int = 0, fit: Fit = "crop", **settings: Any
    ) -> Take:
        """Create a take that begins with a picture and animates it by the prompt.

        Args:
            image: a file that Pillow reads, or pictures [1, height, width, 3] of the studio's size.
            prompt: what happens.
            seed: an integer, at most 2^53.
            fit: "crop" fills the frame and cuts off the rest, "fit" shows the whole picture between black bars.
            settings: steps, guidance, negative_prompt and loras, as in `take`.

        Raises:
            MediaError: the file cannot be read.
            InputError: as `take`.
        """
        return self._take(
            replace(self.engine.begin(prompt, seed=seed, **settings), given=self.engine.init_image(image, fit))
        )

    def extend(
        self,
        video: Path | str | Pictures,
        prompt: str,
        *,
        seed: int = 0,
        fit: Fit = "crop",
        max_seconds: float = 600,
        **settings: Any,
    ) -> Take:
        """Create a take that continues a clip; its own first frames are the last ones of the clip.

        Args:
            video: a file that FFmpeg reads, or pictures [frames, height, width, 3] at the studio's fps.
            prompt: prompt of the continuation.
            seed: an integer, at most 2^53.
            fit: as in `animate`.
            max_seconds: longest accepted duration of a file.
            settings: as in `animate`.

        Raises:
            MediaError: the file cannot be read, or is too long.
            InputError: the clip is shorter than a chunk; or as `take`.
        """
        pictures = video
        if not isinstance(pictures, Tensor):
            pictures = read_video(Path(pictures), self.size, self.fps, max_seconds, fit)
        return self._take(
            replace(self.engine.begin(prompt, seed=seed, **settings), given=self.engine.init_clip(pictures))
        )

    def restyle(
        self,
        source: Source | Path | str | Tensor | np.ndarray | Iterable[Tensor],
        prompt: str,
        *,
        strength: float | None = None,
        seed: int = 0,
        fit: Fit = "crop",
        **settings: Any,
    ) -> Take:
        """Create a take that follows another video while it arrives, one chunk behind it.

        Args:
            source: a file that FFmpeg reads; an iterator of pictures, pulled as they are needed; or a `LiveSource`.
            prompt: what the video becomes.
            strength: noise level in (0, 1] to which the source is noised; 1 leaves nothing of its look. A model with a
                source_adapter follows the source's shapes at any strength. None: `Model.strength`.
            seed: an integer, at most 2^53.
            fit: as in `animate`, for a file.
            settings: as in `animate`.

        Raises:
            MediaError: the file cannot be read.
            InputError: the strength is out of range; or as `take`.
        """
        strength = self.model.strength if strength is None else strength
        if not 0 < strength <= 1:
            raise InputError(f"strength lies above 0 (the source as it is) and up to 1 (none of it), got {strength}")
        if isinstance(source, Tensor | np.ndarray):
            source = [torch.as_tensor(source)]
        if isinstance(source, str | Path):
            source = stream_video(Path(source), self.size, self.fps, fit)
        if not isinstance(source, Source):
            source = IteratorSource(source, self.size)
        return self._take(replace(self.engine.begin(prompt, seed=seed, **settings), strength=strength), source)

    def replay(self, script: Script | Path | str) -> Take:
        """Create the take of a script; its `stream()` ends where the script's take ended.

        Raises:
            InputError: the script cannot be read, or is for another model, other weights or another size.
        """
        script = script if isinstance(script, Script) else Script.load(script)
        return Take(TakeController(self.engine, state_of(script, self.engine)), script.chunks or None)

    def resume(self, script: Script, latents: Sequence[Tensor], *, branch_of: Take | None = None) -> Take:
        """Create the take of a script whose first chunks another process made, to go on after them.

        The memory of the last chunk is computed from all latents, unless the script says that the next chunk is
        `rebuilt` from those in the window.

        Args:
            script: the take's script, with the cues that wait.
            latents: latents of the chunks that were made, after those of `branch_of`.
            branch_of: take with its head where this one branches off; None: it is no branch.

        Raises:
            InputError: as `replay`.
            MediaError: the latents cannot be written to disk.
        """
        before = None if branch_of is None else branch_of.state
        return self._take(resumed_state(script, self.engine, latents, before))

    def warm_up(self, *, until_full: bool = False) -> None:
        """Make chunks and discard them, since the first ones of a process take longer.

        Args:
            until_full: whether to continue until the window is full, to compile the network for all cache sizes.
        """
        stream = self.model.preset.stream
        chunks = stream.window // stream.chunk + 1 if until_full else 2
        for _ in self.take("a boat on the sea").stream(chunks=chunks):
            pass

    def close(self) -> None:
        """Remove the temporary files; takes of this studio cannot be continued after that."""
        self.engine.spool.close()

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, state: TakeState, source: Source | None = None) -> Take:
        return Take(TakeController(self.engine, state, source))


def open_studio(
    name: str = "tiny-world",
    *,
    size: PictureSize | None = None,
    device: str | None = None,
    fp8: bool = False,
    compiled: bool = False,
    loras: Mapping[str, Path | str | LoraChoice] = MappingProxyType({}),
) -> Studio:
    """Open a packaged or imported model, or a model folder, to direct takes on it. Arguments: see `longtake.open`.

    Raises:
        WeightsError: the model is unknown, incomplete or damaged, or a LoRA cannot be used.
        DeviceError: the device is not available, its memory is too small, or it lacks what `fp8` or `compiled` need.
        InputError: the size does not fit the model, or there are too many LoRAs.
    """
    chosen = {key: one if isinstance(one, LoraChoice) else LoraChoice(Path(one)) for key, one in loras.items()}
    return Studio(open_model(name, device=device, size=size, fp8=fp8, compiled=compiled, loras=chosen), size=size)
