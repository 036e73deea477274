"""LoRAs of an opened model, kept apart from its weights: their scales may change from chunk to chunk.

A change rewrites the corrected parameters in place, from copies of the originals: a pass costs what it costs without
LoRAs, a scale of 0 gives the very bits of the model without them, and no rounding error adds up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from longtake.core.cue import Scales
from longtake.core.errors import InputError
from longtake.core.limits import MAX_LORA_SCALE, MAX_LORAS
from longtake.nets.dit import DiT
from longtake.weights.checkpoint import digest
from longtake.weights.lora import Lora, corrected, lora_file, read_lora


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA to open a model with: its file, and the scale until a cue changes it."""

    file: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not abs(self.scale) <= MAX_LORA_SCALE:
            raise InputError(f"the scale of a LoRA lies from -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}, got {self.scale:g}")


class LiveLoras:
    """LoRAs of the networks of a model, whose parameters they correct in place."""

    def __init__(self, choices: Mapping[str, LoraChoice], nets: Sequence[DiT]) -> None:
        """Read the LoRAs and correct the networks by their opening scales.

        Args:
            choices: LoRAs by name.
            nets: networks of one shape on one device, in the precision in which they compute.

        Raises:
            InputError: there are too many.
            WeightsError: a file cannot be used.
        """
        if len(choices) > MAX_LORAS:
            raise InputError(f"a model is opened with at most {MAX_LORAS} LoRAs, got {len(choices)}")
        shapes = {name: tuple(p.shape) for name, p in nets[0].named_parameters()}
        self.opening: dict[str, float] = {name: choice.scale for name, choice in choices.items()}
        self.loras: dict[str, Lora] = {name: read_lora(choice.file, shapes) for name, choice in choices.items()}
        self.digests = {name: digest([lora_file(choice.file)]) for name, choice in choices.items()}
        parameters = [
            {name: p for name, p in net.named_parameters() if any(each.corrects(name) for each in self.loras.values())}
            for net in nets
        ]
        # The originals are kept in main memory: on a GPU they would take the place of what a take needs.
        self._nets = [{name: (p, p.detach().cpu().clone()) for name, p in found.items()} for found in parameters]
        self._scales: dict[str, float] = dict.fromkeys(choices, 0.0)
        self.set(())

    @property
    def told(self) -> list[str]:
        """A line for each LoRA: what it corrects, and what of it is left out."""
        return [f"{name}: {lora.told}" for name, lora in self.loras.items()]

    def scales(self, changed: Scales) -> dict[str, float]:
        """Scales in force, given those that cues have changed."""
        return {**self.opening, **dict(changed)}

    @torch.no_grad()
    def set(self, changed: Scales) -> None:
        """Correct the networks by the scales in force, unless they are already."""
        wanted = self.scales(changed)
        stale = {name for name, lora in self.loras.items() if self._scales[name] != wanted[name]}
        for parameters in self._nets if stale else ():
            for name, (parameter, original) in parameters.items():
                if any(self.loras[lora].corrects(name) for lora in stale):
                    chosen = [(lora, wanted[own]) for own, lora in self.loras.items()]
                    parameter.copy_(corrected(name, original.to(parameter.device), chosen))
        self._scales = wanted
