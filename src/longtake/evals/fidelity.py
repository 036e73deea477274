"""What is given to a model: is a picture kept, do a source's shapes come through?

a picture               -> a take that begins with it: its first frame against the picture
a scene's plain look    -> what the model paints over it: shapes against the scene's, colours against its full look
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
from jaxtyping import Bool
from torch import Tensor

from longtake.core.shapes import Pictures
from longtake.evals.judge import Judge, Progress
from longtake.evals.prompts import Asked
from longtake.evals.statistics import Figure, figure
from longtake.sample.model import Model
from longtake.studio.studio import Studio
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene

MOVED = 24  # of 255: a pixel this far from the clip's median shows something that moves
CHUNKS = 4  # of a painting


def fidelity(name: str, model: Model, asked: Sequence[Asked], judge: Judge, progress: Progress) -> dict[str, Figure]:
    """Figures of what is given, over scenes."""
    kept, near, met, shapes = [], [], [], []
    for num, one in enumerate(asked, 1):
        scene = replace(one.scene, height_px=model.size.height, width_px=model.size.width)
        kept.append(psnr(first_frame(model, scene, one.prompt), render([scene], frames=range(1))[0, 0]))
        plain, full, truth = looks(scene, chunk_frames(model, CHUNKS))
        shown = painted(model, plain, one.prompt, seed=num)
        near.append(psnr(luma(shown), luma(full)))
        answers = judge.see([shown], model.fps).answers
        met.append(mean(float(answers[task][0] == wanted) for task, wanted in one.expected.items()))
        if bool(truth.any()) and scene.actors[0].motion != "stands still":  # what stands cannot be told from the place
            shapes.append(iou(silhouettes(shown), truth))
        progress(f"{name}: given", num, len(asked), {})
    found = {
        "picture kept, dB": figure(kept),
        "painting: adherence": figure(met),
        "painting: luma to the truth, dB": figure(near),
    }
    return found | ({"painting: shapes": figure(shapes)} if shapes else {})


def first_frame(model: Model, scene: Scene, prompt: str) -> Tensor:
    """The first frame of a take that begins with the first picture of a scene."""
    with Studio(model) as studio:
        take = studio.animate(render([scene], frames=range(1))[0], prompt)
        return next(iter(take.stream(chunks=1))).frames[0]


def painted(model: Model, plain: Pictures, prompt: str, *, seed: int, strength: float | None = None) -> Pictures:
    """A source, restyled.

    Args:
        model: a student.
        plain: the source, of whole chunks.
        prompt: what it becomes.
        seed: of the take.
        strength: at which the source enters; None: the model's own.
    """
    with Studio(model) as studio:
        take = studio.restyle(plain, prompt, strength=strength, seed=seed)
        return torch.cat([chunk.frames for chunk in take.stream()])


def looks(scene: Scene, num_frames: int) -> tuple[Pictures, Pictures, Bool[Tensor, "frames height width"]]:
    """A scene's plain look, its full one, and where its subjects are."""
    scene = scene.lasting(num_frames)
    plain, full = render([scene], "plain")[0], render([scene])[0]
    empty = render([replace(scene, actors=())], "plain")[0]
    return plain, full, (plain.float() - empty.float()).abs().amax(-1) > MOVED


def chunk_frames(model: Model, num: int) -> int:
    """Frames of a take's first chunks."""
    return model.preset.codec.stride.frames(num * model.preset.stream.chunk)


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels, of values in 0..255; 99 where they are equal."""
    error = float((a.float() - b.float()).square().mean())
    return 99.0 if error == 0 else 10 * float(torch.log10(torch.tensor(255**2 / error)))


def luma(pictures: Pictures) -> Tensor:
    """Brightness of every pixel, 0..255."""
    return pictures.float() @ torch.tensor([0.2126, 0.7152, 0.0722])


def silhouettes(pictures: Pictures) -> Bool[Tensor, "frames height width"]:
    """What differs from the clip's median over time."""
    colours = pictures.float()
    return (colours - colours.median(0).values).abs().amax(-1) > MOVED


def iou(a: Tensor, b: Tensor) -> float:
    """Of two sets of pixels, over a whole clip."""
    return float((a & b).sum() / (a | b).sum().clamp_min(1))
