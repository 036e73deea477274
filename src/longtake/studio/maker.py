"""What takes and scripts ask of the studio that makes their chunks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.media.clips import Fit
from longtake.nets.light_codec import CodecState
from longtake.sample.generate import Model
from longtake.sample.plans import Given
from longtake.sample.sampler import GoOn, Made, always
from longtake.studio.session import TakeState
from longtake.studio.timeline import Node


@runtime_checkable
class Maker(Protocol):
    """A model on a device, and the memory of all takes that are made on it. `studio.Studio` is one."""

    @property
    def model(self) -> Model: ...

    @property
    def size(self) -> PictureSize:
        """Of all pictures."""
        ...

    def begin(self, prompt: str, seed: int, steps: int | None = None, guidance: float | None = None) -> TakeState:
        """The bookkeeping of a take of which nothing has been made.

        Raises:
            InputError: the prompt is empty or too long, or a number is out of range.
        """
        ...

    def checked_prompt(self, prompt: str) -> str:
        """A prompt that the model can read whole.

        Raises:
            InputError: it is empty or too long.
        """
        ...

    def give_image(self, image: Path | str | Pictures, fit: Fit = "crop") -> Given:
        """Keep a picture that a take can begin with or go on from.

        Raises:
            MediaError: the file cannot be read.
        """
        ...

    def give_clip(self, pictures: Pictures) -> Given:
        """Keep the end of a clip: as much as fits the window beside a chunk.

        Raises:
            InputError: it is shorter than a chunk.
        """
        ...

    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        """Latents of the next pictures of a source."""
        ...

    def make(self, node: Node, source: Latent | None = None, go_on: GoOn = always) -> Made:
        """Make a chunk after its parent, whose memory is found or rebuilt.

        Args:
            node: what is planned.
            source: latents that it follows.
            go_on: see `Sampler.make`.

        Raises:
            OvertakenError: see there.
            MediaError: the chunk's latents cannot be kept.
            DeviceError: the device's memory is full.
        """
        ...

    def num_missing(self, node: Node | None) -> int:
        """Chunks that must be made again before the one after `node` can be made."""
        ...

    def shown(self, head: Node) -> Iterator[Pictures]:
        """The pictures of all chunks up to a head again, decoded from their latents."""
        ...
