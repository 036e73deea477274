"""An opened model: its student or its teacher, its codec, its text encoder."""

from dataclasses import dataclass, replace
from functools import cached_property

from longtake.core.compiler import has_compiler
from longtake.core.configs import Preset
from longtake.core.errors import DeviceError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.nets.codec import Codec
from longtake.nets.dit import DiT
from longtake.nets.text import TextEncoder
from longtake.sample.words import Words
from longtake.weights.plan import MemoryPlan
from longtake.weights.presets import Nets, open_nets


@dataclass(frozen=True, kw_only=True)
class Model:
    """An opened model: the student or the teacher, its codec, its text encoder."""

    preset: Preset
    dit: DiT
    codec: Codec
    text_encoder: TextEncoder
    digest: str  # of the weights, and of what else decides bits: precision and window, where they are not the preset's
    is_teacher: bool
    plan: MemoryPlan
    painter: DiT | None = None  # the student as it follows a source video, where the model has learned that
    vocabulary: Vocabulary | None = None  # the words it was trained on, where that is known

    @classmethod
    def of(cls, nets: Nets, *, is_teacher: bool = False) -> "Model":
        """The nets, once they are there."""
        return cls(
            preset=nets.preset,
            dit=nets.dit,
            codec=nets.codec,
            text_encoder=nets.text_encoder,
            digest=nets.digest,
            is_teacher=is_teacher,
            plan=nets.plan,
            painter=nets.painter,
            vocabulary=nets.vocabulary,
        )

    def compile(self) -> None:
        """Make the student's passes compiled programs: minutes before the first chunks, less time for those after.

        Raises:
            DeviceError: there is no C++ compiler.
        """
        if not has_compiler():
            raise DeviceError("compiled programs need a C++ compiler, and neither g++ nor clang++ is on the path")
        for dit in (self.dit, self.painter):
            if dit is not None:
                dit.compile_passes()

    def with_steps(self, num: int) -> "Model":
        """The same networks with another number of denoising steps, evenly spaced."""
        own = self.preset.teacher if self.is_teacher else self.preset.student
        changed = {"teacher" if self.is_teacher else "student": own.with_steps(num)}
        return replace(self, preset=replace(self.preset, **changed))

    @property
    def following(self) -> "Model":
        """The model as it follows a source: with its painter, where it has one."""
        return self if self.painter is None else replace(self, dit=self.painter)

    @cached_property
    def words(self) -> Words | None:
        """Which words of a prompt it was not trained on; None where nobody knows what it was trained on."""
        return None if self.vocabulary is None else Words(vocabulary=self.vocabulary, encoder=self.text_encoder)

    @property
    def strength(self) -> float:
        """At which a source enters, if nobody says: a painter keeps to its shapes, so none of its look need be left."""
        return 0.6 if self.painter is None else 1.0

    @property
    def name(self) -> str:
        return self.preset.name

    @property
    def fps(self) -> float:
        return self.preset.fps

    @property
    def size(self) -> PictureSize:
        return self.preset.size


def open_model(
    name: str = "tiny-world",
    *,
    teacher: bool = False,
    device: str | None = None,
    size: PictureSize | None = None,
    fp8: bool = False,
    compiled: bool = False,
) -> Model:
    """Open a packaged or imported model, or a model folder: its student, or the many-step teacher.

    Args:
        name: of the model, or its folder.
        teacher: open that.
        device: "cpu", "cuda", "cuda:1"; None: the first GPU if there is one.
        size: for which memory is planned; None: what the model was trained on.
        fp8: keep the network's linear layers in 8 bits: half the memory, other bits.
        compiled: see `Model.compile`.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network.
        DeviceError: the device is not there, its memory is too small, it has no 8-bit floats where `fp8` wants them,
            or there is no compiler.
    """
    model = Model.of(open_nets(name, teacher=teacher, device=device, size=size, fp8=fp8), is_teacher=teacher)
    if compiled:
        model.compile()
    return model
