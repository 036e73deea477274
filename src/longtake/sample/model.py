"""Opened models: student or teacher, codec and text encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from longtake.core.compiler import has_compiler
from longtake.core.configs import Preset
from longtake.core.errors import DeviceError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.nets.codec import Codec
from longtake.nets.dit import DiT
from longtake.nets.text import TextEncoder
from longtake.sample.words import Words
from longtake.weights.live_loras import LiveLoras, LoraChoice
from longtake.weights.plan import MemoryPlan
from longtake.weights.presets import Nets, open_nets


@dataclass(frozen=True, kw_only=True)
class Model:
    """Opened model: the student or the teacher, with its codec and its text encoder."""

    preset: Preset
    dit: DiT
    codec: Codec
    text_encoder: TextEncoder
    digest: str  # hash of the weights, and of precision and window if these are not the preset's
    is_teacher: bool
    plan: MemoryPlan
    source_adapter: DiT | None = None  # variant of the student that follows a source video, if the model has one
    vocabulary: Vocabulary | None = None  # words of the training captions, if known
    loras: LiveLoras | None = None  # LoRAs whose scales may change from chunk to chunk, if opened with any

    @classmethod
    def of(cls, nets: Nets, *, is_teacher: bool = False) -> "Model":
        """Create a model from loaded networks."""
        return cls(
            preset=nets.preset,
            dit=nets.dit,
            codec=nets.codec,
            text_encoder=nets.text_encoder,
            digest=nets.digest,
            is_teacher=is_teacher,
            plan=nets.plan,
            source_adapter=nets.source_adapter,
            vocabulary=nets.vocabulary,
            loras=nets.loras,
        )

    def compile(self) -> None:
        """Compile the network's passes over chunks: this delays the first chunks by minutes and speeds up later ones.

        Raises:
            DeviceError: there is no C++ compiler.
        """
        if not has_compiler():
            raise DeviceError("compiled programs need a C++ compiler, and neither g++ nor clang++ is on the path")
        for dit in (self.dit, self.source_adapter):
            if dit is not None:
                dit.compile_passes()

    def with_steps(self, num: int) -> "Model":
        """Model with the same networks and `num` evenly spaced denoising steps."""
        own = self.preset.teacher if self.is_teacher else self.preset.student
        changed = {"teacher" if self.is_teacher else "student": own.with_steps(num)}
        return replace(self, preset=replace(self.preset, **changed))

    @property
    def following(self) -> "Model":
        """Model with the source adapter, if there is one, as its network, to follow a source."""
        return self if self.source_adapter is None else replace(self, dit=self.source_adapter)

    @cached_property
    def words(self) -> Words | None:
        """Detector of prompt words outside the training captions; None if these are not known."""
        return None if self.vocabulary is None else Words(vocabulary=self.vocabulary, encoder=self.text_encoder)

    @property
    def strength(self) -> float:
        """Default strength of a source: 1 with a source adapter, which follows its shapes even so; else 0.6."""
        return 0.6 if self.source_adapter is None else 1.0

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
    loras: Mapping[str, LoraChoice] = MappingProxyType({}),
) -> Model:
    """Open a packaged or imported model, or a model folder: its student, or the many-step teacher.

    Args:
        name: name of the model, or its folder.
        teacher: whether to open the teacher instead of the student.
        device: "cpu", "cuda", "cuda:1"; None: the first GPU if there is one.
        size: picture size for which memory is planned; None: the size that the model was trained on.
        fp8: whether to store the network's linear layers in 8-bit floats: half the memory, different bits.
        compiled: whether to compile the network, see `Model.compile`.
        loras: LoRAs by name, kept apart from the weights so that cues can change their scales.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network; or a LoRA cannot be used.
        InputError: there are too many LoRAs.
        DeviceError: the device is not available, its memory is too small, it lacks the 8-bit floats that `fp8` needs,
            or there is no compiler.
    """
    model = Model.of(
        open_nets(name, teacher=teacher, device=device, size=size, fp8=fp8, loras=loras), is_teacher=teacher
    )
    if compiled:
        model.compile()
    return model
