"""Nodes for ComfyUI that direct takes on a longtake server: prompts with cues, pictures, clips, LoRAs in; frames out.

Copy this folder to ComfyUI/custom_nodes/longtake, install the client into ComfyUI's Python
(pip install "longtake[client]"), and start a server: longtake serve. The model is in the server, on any machine.
"""

import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtake.client import Client, RemoteTake
from longtake.core.errors import InputError
from longtake.core.limits import MAX_GUIDANCE, MAX_STEPS
from longtake.core.shapes import PictureSize
from longtake.media.animations import open_writer
from longtake.sample.cues import cues_from

CATEGORY = "longtake"
PREVIEW_PX = 512
SECONDS = ("FLOAT", {"default": 5.0, "min": 0.1, "max": 600.0, "step": 0.1})


class LongtakeServer:
    """Node: where the server is, and the key that it asks for, if any."""

    CATEGORY = CATEGORY
    FUNCTION = "server"
    RETURN_TYPES = ("LONGTAKE_SERVER",)
    RETURN_NAMES = ("server",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  (the contract's name)
        return {
            "required": {"url": ("STRING", {"default": "http://127.0.0.1:8000"}), "key": ("STRING", {"default": ""})}
        }

    def server(self, url: str, key: str) -> tuple[tuple[str, str]]:
        return ((url, key),)


class LongtakeTake:
    """Node: a take. Its first line is the prompt; each further line is a change at a time, "4s: it starts to snow"."""

    CATEGORY = CATEGORY
    FUNCTION = "make"
    RETURN_TYPES = ("IMAGE", "FLOAT", "STRING")
    RETURN_NAMES = ("frames", "fps", "script")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "server": ("LONGTAKE_SERVER",),
                "prompt": (
                    "STRING",
                    {"default": "a tiger walks through a forest\n4s: it starts to snow", "multiline": True},
                ),
                "seconds": SECONDS,
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**53}),
            },
            "optional": {
                "steps": ("INT", {"default": 0, "min": 0, "max": MAX_STEPS, "tooltip": "0: the model's own"}),
                "guidance": ("FLOAT", {"default": 1.0, "min": 0.0, "max": float(MAX_GUIDANCE), "step": 0.1}),
                "negative_prompt": ("STRING", {"default": ""}),
                "loras": ("STRING", {"default": "", "tooltip": "scales of the server's LoRAs: ink=0.6, clay=0"}),
                "image": ("IMAGE", {"tooltip": "a picture to begin with"}),
                "clip": ("IMAGE", {"tooltip": "frames to go on from"}),
            },
        }

    def make(  # noqa: PLR0913, PLR0917  (the contract passes every input by its name)
        self,
        server: tuple[str, str],
        prompt: str,
        seconds: float,
        seed: int,
        steps: int = 0,
        guidance: float = 1.0,
        negative_prompt: str = "",
        loras: str = "",
        image: Tensor | None = None,
        clip: Tensor | None = None,
    ) -> tuple[Tensor, float, str]:
        """Make a take and return its frames [n, height, width, 3] in 0..1, frames per second, and its script.

        Raises:
            InputError: a value is invalid.
            RequestError: the server cannot be reached, or refuses the request.
        """
        first, *then = [line.strip() for line in prompt.splitlines() if line.strip()] or [""]
        cues = cues_from(first, then, seconds)
        fields = {"seed": seed, "steps": steps or None, "guidance": guidance, "loras": scales_of(loras)}
        fields["negative_prompt"] = negative_prompt.strip() or None
        url, key = server
        with tempfile.TemporaryDirectory() as name, Client(url, key or None) as client:
            given = {
                kind: _written(frames, Path(name) / file)
                for kind, file, frames in (("image", "image.png", image), ("clip", "clip.mp4", clip))
                if frames is not None
            }
            take = client.take(cues[0].prompt, **given, **{k: v for k, v in fields.items() if v is not None})
            try:
                for cue in cues[1:]:
                    take.cue(prompt=cue.prompt, at_s=cue.at_s)
                frames = _made(take, seconds)
                script = take.script().model_dump_json(exclude_none=True)
            finally:
                take.close()
        return frames, take.opened.fps, script


def scales_of(text: str) -> dict[str, float] | None:
    """Scales of LoRAs from "ink=0.6, clay=0"; None if the text is empty.

    Raises:
        InputError: a scale is no number.
    """
    found = {}
    for part in (part.strip() for part in text.split(",")):
        name, _, scale = part.partition("=")
        if part:
            try:
                found[name.strip()] = float(scale)
            except ValueError:
                raise InputError(f'scales of LoRAs are written "ink=0.6, clay=0", got "{part}"') from None
    return found or None


def _made(take: RemoteTake, seconds: float) -> Tensor:
    """Frames of a take until it has the length that is asked for; shown while they arrive, and stopped by Cancel."""
    wanted, parts, num = math.ceil(seconds * take.opened.fps), [], 0
    progress = _progress(wanted)
    for chunk in take:
        pictures = chunk.pictures()
        parts.append(pictures.float() / 255)
        num += len(pictures)
        progress(min(num, wanted), pictures[-1])
        if num >= wanted:
            break
    return torch.cat(parts)[:wanted]


def _progress(total: int) -> Any:
    """Function that shows progress and a preview in ComfyUI, and raises where its user has pressed Cancel."""
    with suppress(ImportError):
        # There in ComfyUI alone.
        import comfy.model_management  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        import comfy.utils  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        bar = comfy.utils.ProgressBar(total)

        def show(done: int, picture: Tensor) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total, ("JPEG", Image.fromarray(picture.numpy()), PREVIEW_PX))

        return show
    return lambda *_: None


def _written(frames: Tensor, path: Path) -> Path:
    """Write frames [n, height, width, 3] in 0..1 to a picture (the first of them) or to a video."""
    pictures = (frames[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    if path.suffix == ".png":
        Image.fromarray(np.asarray(pictures[0])).save(path)
        return path
    size = PictureSize(height=pictures.shape[1], width=pictures.shape[2])
    with open_writer(path, fps=16.0, size=size) as writer:
        writer.push(pictures)
    return path


NODE_CLASS_MAPPINGS = {"LongtakeServer": LongtakeServer, "LongtakeTake": LongtakeTake}
NODE_DISPLAY_NAME_MAPPINGS = {"LongtakeServer": "longtake server", "LongtakeTake": "longtake take"}
__all__: Sequence[str] = ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS")
