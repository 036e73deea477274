"""Fidelity to given inputs: how well a picture is kept, and whether a source's shapes are preserved.

a picture               -> a take that begins with it; its first frame is compared with the picture
a scene's plain look    -> the model's restyled take; shapes are compared with the scene's, luma with its full look
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
from longtake.evals.statistics import Metric, metric
from longtake.sample.model import Model
from longtake.studio.studio import Studio
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene

MOVED = 24  # deviation in grey levels of 255 from the clip's median above which a pixel counts as moving
CHUNKS = 4  # number of chunks of a restyled take


def fidelity(name: str, model: Model, asked: Sequence[Asked], judge: Judge, progress: Progress) -> dict[str, Metric]:
    """Metrics of the fidelity to given inputs, over the scenes of `asked`."""
    kept, near, met, shapes = [], [], [], []
    for num, one in enumerate(asked, 1):
        scene = replace(one.scene, height_px=model.size.height, width_px=model.size.width)
        kept.append(psnr(first_frame(model, scene, one.prompt), render([scene], frames=range(1))[0, 0]))
        plain, full, truth = looks(scene, chunk_frames(model, CHUNKS))
        shown = restyled(model, plain, one.prompt, seed=num)
        near.append(psnr(luma(shown), luma(full)))
        answers = judge.see([shown], model.fps).answers
        met.append(mean(float(answers[task][0] == wanted) for task, wanted in one.expected.items()))
        if bool(truth.any()) and scene.actors[0].motion != "stands still":  # static subjects have no silhouette
            shapes.append(iou(silhouettes(shown), truth))
        progress(f"{name}: given", num, len(asked), {})
    found = {
        "picture kept, dB": metric(kept),
        "restyle: adherence": metric(met),
        "restyle: luma to the truth, dB": metric(near),
    }
    return found | ({"restyle: shapes": metric(shapes)} if shapes else {})


def first_frame(model: Model, scene: Scene, prompt: str) -> Tensor:
    """The first frame of a take that begins with the first frame of a scene."""
    with Studio(model) as studio:
        take = studio.animate(render([scene], frames=range(1))[0], prompt)
        return next(iter(take.stream(chunks=1))).frames[0]


def restyled(model: Model, plain: Pictures, prompt: str, *, seed: int, strength: float | None = None) -> Pictures:
    """Restyle a source and return the frames of the take.

    Args:
        model: model with its student.
        plain: frames of the source, of whole chunks.
        prompt: prompt of the take.
        seed: seed of the take.
        strength: strength at which the source is restyled; None: the model's default.
    """
    with Studio(model) as studio:
        take = studio.restyle(plain, prompt, strength=strength, seed=seed)
        return torch.cat([chunk.frames for chunk in take.stream()])


def looks(scene: Scene, num_frames: int) -> tuple[Pictures, Pictures, Bool[Tensor, "frames height width"]]:
    """A scene in its plain and in its full look, and the mask of its subjects."""
    scene = scene.lasting(num_frames)
    plain, full = render([scene], "plain")[0], render([scene])[0]
    empty = render([replace(scene, actors=())], "plain")[0]
    return plain, full, (plain.float() - empty.float()).abs().amax(-1) > MOVED


def chunk_frames(model: Model, num: int) -> int:
    """Number of frames of a take's first `num` chunks."""
    return model.preset.codec.stride.frames(num * model.preset.stream.chunk)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values in 0..255; 99 if they are equal."""
    error = float((a.float() - b.float()).square().mean())
    return 99.0 if error == 0 else 10 * float(torch.log10(torch.tensor(255**2 / error)))


def luma(pictures: Pictures) -> Tensor:
    """BT.709 luma of every pixel, 0..255."""
    return pictures.float() @ torch.tensor([0.2126, 0.7152, 0.0722])


def silhouettes(pictures: Pictures) -> Bool[Tensor, "frames height width"]:
    """Mask of the pixels that differ from the clip's median over time by more than `MOVED`."""
    colours = pictures.float()
    return (colours - colours.median(0).values).abs().amax(-1) > MOVED


def iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks, over a whole clip."""
    return float((a & b).sum() / (a | b).sum().clamp_min(1))
