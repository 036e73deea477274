"""The judge: a small network that says what a clip shows, trained on rendered truth and tried on scenes it never saw.

    frames -> convolutions, one feature vector a frame -> convolutions over time -> mean -> one answer a task

It looks at two seconds, nine frames of 80x48. In training its clips are blurred, noisy and tinted as generated ones
may be, so that it judges what is there and not how sharp it is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.errors import WeightsError
from longtake.core.noise import rng_for
from longtake.core.shapes import Pictures
from longtake.evals.prompts import TASKS, calm, facts
from longtake.weights.checkpoint import digest
from longtake.worlds.assets import place_named
from longtake.worlds.render import render
from longtake.worlds.scenes import Split, WorldConfig, sample_scene

FRAMES = 9  # that it looks at
SECONDS = 2.0  # over which they are spread
LATENT_FRAMES = 9  # of the clips it learns from
HEIGHT, WIDTH = 48, 80
FEATURES = 96
BATCH = 32
RENDER_BATCH = 20

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the judge says of some clips."""

    answers: Mapping[str, Sequence[str]]  # task -> an answer for each clip
    features: Float[Tensor, "b d"]
    frame_features: Float[Tensor, "b f d"]


class Judge(nn.Module):
    """See the top of the file.

    `classes` names the answers of each task, `accuracy` says how often they are right, `digest` which judge this is.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.classes = {task: tuple(names) for task, names in classes.items()}
        self.accuracy: dict[str, float] = {}
        self.digest = ""
        widths = (32, 64, 96)
        self.look = nn.Sequential(
            nn.Conv2d(3, widths[0], 6, stride=4, padding=1),
            nn.GroupNorm(8, widths[0]),
            nn.SiLU(),
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                    nn.Conv2d(after, after, 3, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                )
                for before, after in pairwise(widths)
            ),
            nn.Flatten(),
            nn.Linear(widths[-1] * (HEIGHT // 16) * (WIDTH // 16), FEATURES),
        )
        self.over_time = nn.ModuleList(nn.Conv1d(FEATURES, FEATURES, 3, padding=1) for _ in range(2))
        self.answers = nn.ModuleDict({task: nn.Linear(FEATURES, len(names)) for task, names in self.classes.items()})

    def features(self, frames: Float[Tensor, "b f c h w"]) -> tuple[Tensor, Tensor]:
        """Of the clip [b, d], and of each frame [b, f, d]."""
        each = self.look(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        x = each.transpose(1, 2)
        for conv in self.over_time:
            x = x + functional.silu(conv(x))
        return x.mean(2), each

    def forward(self, frames: Float[Tensor, "b f c h w"]) -> dict[str, Tensor]:
        """Logits of each task."""
        clip, _ = self.features(frames)
        return {task: head(clip) for task, head in self.answers.items()}

    @torch.inference_mode()
    def see(self, clips: Sequence[Pictures], fps: float) -> Seen:
        """Judge the beginning of some clips."""
        frames = torch.stack([as_seen(clip, fps) for clip in clips])
        clip, each = self.features(frames)
        answers = {
            task: [self.classes[task][int(i)] for i in head(clip).argmax(1)] for task, head in self.answers.items()
        }
        return Seen(answers=answers, features=clip, frame_features=each)


def as_seen(clip: Pictures, fps: float) -> Float[Tensor, "f c h w"]:
    """The frames of a clip that the judge looks at, in [-1, 1]; the last one again where the clip is too short."""
    at = [min(round(i * SECONDS * fps / (FRAMES - 1)), len(clip) - 1) for i in range(FRAMES)]
    pictures = clip[at].permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(pictures, (HEIGHT, WIDTH), mode="area")


def classes_of(world: WorldConfig) -> dict[str, tuple[str, ...]]:
    """The answers that are possible in a world."""
    hours = {place_named(p).time_of_day for p in world.places} | {"night", "sunset"}
    return dict(
        zip(
            TASKS,
            (
                (*world.subjects, *world.held_out_subjects),
                world.places,
                tuple(sorted({*world.motions, "stands still"})),
                ("left", "right"),
                tuple(sorted(hours)),
                ("clear", "fog", "rain", "snow"),
            ),
            strict=True,
        )
    )


def trained_judge(
    world: WorldConfig, progress: Progress, *, num_clips: int = 2400, steps: int = 1000, seed: int = 0
) -> Judge:
    """Train a judge on scenes of training, and try it on held-out ones (`Judge.accuracy`)."""
    torch.manual_seed(seed)
    judge = Judge(classes_of(world))
    frames, labels = _truth(world, num_clips, "train", judge, progress)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
        rng = rng_for(seed, ("judge", step))
        rows = torch.randint(len(frames), (BATCH,), generator=rng)
        logits = judge(_weathered(frames[rows].float() / 127.5 - 1, rng))
        losses = [
            functional.cross_entropy(logits[task], labels[rows, i], ignore_index=-1)
            for i, task in enumerate(TASKS)
            if bool((labels[rows, i] >= 0).any())
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress("training the judge", step + 1, steps, {"loss": loss.item()})
    judge.eval()
    frames, labels = _truth(world, max(num_clips // 8, 1), "held_out", judge, progress)
    judge.accuracy = _accuracy(judge, frames, labels)
    return judge


def judge_for(world: WorldConfig, path: Path, progress: Progress, **options: int) -> Judge:
    """The judge of a world: read from `path`, or trained and kept there.

    Raises:
        WeightsError: the file is there, but holds the judge of another world, or no judge.
    """
    if not path.exists():
        judge = trained_judge(world, progress, **options)
        about = {"classes": judge.classes, "accuracy": judge.accuracy, "world": world.hash}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(judge.state_dict(), path, {"judge": json.dumps(about)})
        judge.digest = digest([path])
        return judge
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["judge"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no judge ({error}); remove it, and one is trained") from error
    if about["world"] != world.hash:
        raise WeightsError(f"{path} knows another world; give another folder, or remove it and one is trained")
    judge = Judge(about["classes"])
    judge.load_state_dict(weights)
    judge.accuracy, judge.digest = about["accuracy"], digest([path])
    return judge.eval()


def _truth(world: WorldConfig, num: int, split: Split, judge: Judge, progress: Progress) -> tuple[Tensor, Tensor]:
    """Rendered clips as uint8 frames [n, f, c, h, w], and the class of each task [n, tasks], -1 where there is none."""
    often = replace(
        calm(world),
        weather_probability=0.4,
        time_probability=0.4,
        latent_frames=LATENT_FRAMES,
    )
    frames, labels = [], []
    for start in range(0, num, RENDER_BATCH):
        scenes = [sample_scene(often, seed, split) for seed in range(start, min(start + RENDER_BATCH, num))]
        for scene, clip in zip(scenes, render(scenes), strict=True):
            frames.append(((as_seen(clip, scene.fps) + 1) * 127.5).round().to(torch.uint8))
            shown = facts(scene, scene.state_at(0))
            labels.append([judge.classes[t].index(shown[t]) if t in shown else -1 for t in TASKS])
        progress(f"rendering for the judge ({split})", len(frames), num, {})
    return torch.stack(frames), torch.tensor(labels)


def _weathered(frames: Tensor, rng: torch.Generator) -> Tensor:
    """Blur, noise, contrast and tint, by chance."""
    num = len(frames)

    def draw(*shape: int) -> Tensor:
        return torch.rand((num, *shape), generator=rng)

    blurred = functional.avg_pool2d(frames.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(frames)
    frames = torch.lerp(frames, blurred, draw(1, 1, 1, 1))
    tint = 0.15 * (2 * draw(1, 3, 1, 1) - 1)
    frames = frames * (0.8 + 0.4 * draw(1, 1, 1, 1)) + tint
    return frames + 0.1 * draw(1, 1, 1, 1) * torch.randn(frames.shape, generator=rng)


@torch.inference_mode()
def _accuracy(judge: Judge, frames: Tensor, labels: Tensor) -> dict[str, float]:
    """The share of right answers a task, of the clips where there is one."""
    right = {task: [] for task in TASKS}
    for start in range(0, len(frames), BATCH):
        logits = judge(frames[start : start + BATCH].float() / 127.5 - 1)
        for i, task in enumerate(TASKS):
            wanted = labels[start : start + BATCH, i]
            right[task] += (logits[task].argmax(1) == wanted)[wanted >= 0].tolist()
    return {task: round(sum(found) / len(found), 4) for task, found in right.items() if found}
