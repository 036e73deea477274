"""Latent clips and their captions in memory, sampled in batches with a seeded generator."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from longtake.core.errors import TrainingError
from longtake.core.shapes import Latent, TextStates, Video
from longtake.nets.text import TextEncoder

# Share of sampled clips that are moved to the start: like takes, they begin with a latent frame of one frame.
FROM_THE_START = 0.4


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Latent clips of equal length with the text states of their chunks."""

    x0: Latent
    text: TextStates  # text states with g = number of chunks
    source: Latent | None = None  # the same clips in another look, where stored
    cover: Float[Tensor, "b f h w"] | None = None  # share of each cell that subjects cover, where stored
    opens: Bool[Tensor, " b"] | None = None  # whether a clip is the start of a scene; None: clips are no scenes


class TextTable:
    """Text states of every caption of a data set, encoded once and stored in fp16 without trailing zero rows.

    Row 0 of the table is the empty prompt.
    """

    def __init__(self, encoder: TextEncoder, captions: Sequence[str]) -> None:
        unique = ["", *sorted(set(captions) - {""})]
        self.rows = {caption: row for row, caption in enumerate(unique)}
        self.text_len = encoder.text_len
        self.states: list[Float[Tensor, "_ e"]] = []  # one tensor per caption; UMT5's full 512 rows would take 4 MB
        for states in encoder.each(unique):
            kept = states.half()
            used = int(kept.any(1).nonzero().amax()) + 1
            self.states.append(kept[:used].clone())

    def __call__(self, rows: Tensor, device: torch.device) -> Tensor:
        """Text states [..., t, e] of the captions with indices `rows` [...], in fp32 on `device`."""
        found = torch.zeros(rows.numel(), self.text_len, self.states[0].shape[1])
        for place, row in zip(found, rows.flatten().tolist(), strict=True):
            place[: len(self.states[row])] = self.states[row]
        return found.view(*rows.shape, *found.shape[1:]).to(device)


class LatentClips:
    """All latent clips of a folder of shards, in memory.

    Raises:
        TrainingError: the folder holds no shards, or a shard is damaged.
    """

    def __init__(self, folder: Path, encoder: TextEncoder, chunk: int, device: torch.device) -> None:
        latents, sources, covers, captions = [], [], [], []
        self.openings = False  # whether the clips are the starts of scenes
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as shard:
                    latents.append(shard.get_tensor("latents"))
                    if "sources" in shard.keys():  # noqa: SIM118  (no mapping)
                        sources.append(shard.get_tensor("sources"))
                    if "covers" in shard.keys():  # noqa: SIM118
                        covers.append(shard.get_tensor("covers"))
                    captions.extend(json.loads(shard.metadata()["captions"]))
                    self.openings = "starts" in shard.keys() and not shard.get_tensor("starts").any()  # noqa: SIM118
            except (SafetensorError, OSError, KeyError, TypeError) as err:
                raise TrainingError(f"{path} is damaged ({err}); remove it to make it anew") from err
        if any(found and len(found) != len(latents) for found in (sources, covers)):
            raise TrainingError(f"only some shards in {folder} have sources or covers; remove those of another recipe")
        if not latents:
            raise TrainingError(f"no latent clips in {folder}; run the stage that makes them first")
        self.chunk = chunk
        self.device = device
        self.latents: Float[Tensor, "clips c f h w"] = torch.cat(latents)
        self.sources: Float[Tensor, "clips c f h w"] | None = torch.cat(sources) if sources else None
        self.covers: UInt8[Tensor, "clips f h w"] | None = torch.cat(covers) if covers else None
        self.table = TextTable(encoder, [c for clip in captions for c in clip])
        self.rows = torch.tensor([[self.table.rows[c] for c in clip] for clip in captions])

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def latent_frames(self) -> int:
        """Number of latent frames in a clip."""
        return self.latents.shape[2]

    def draw(
        self,
        num: int,
        latent_frames: int,
        rng: torch.Generator,
        caption_dropout: float = 0.0,
        *,
        inside: bool = False,
    ) -> Batch:
        """Sample `num` clips of `latent_frames` latent frames, many from their start, the others from a random chunk.

        Of scenes all are from the start unless `inside` is set: in the middle of a scene, a caption does not tell where
        its subject is, and a network that has to guess shows it in several places at once.

        Args:
            num: number of clips.
            latent_frames: length; a multiple of the chunk, or 1 for single pictures from anywhere in the clips.
            rng: CPU generator; the batch depends on it alone.
            caption_dropout: share of clips that get the empty prompt.
            inside: whether clips may begin inside a scene, for networks that are given the chunks before.
        """
        step = 1 if latent_frames == 1 else self.chunk
        clips = torch.randint(len(self), (num,), generator=rng)
        starts = torch.randint((self.latents.shape[2] - latent_frames) // step + 1, (num,), generator=rng) * step
        from_the_start = 1.0 if self.openings and latent_frames > 1 and not inside else FROM_THE_START
        starts = starts.masked_fill(torch.rand(num, generator=rng) < from_the_start, 0)
        drop = torch.rand(num, generator=rng) < caption_dropout
        return self._batch(clips, starts[:, None] + torch.arange(latent_frames), drop)

    def beginnings(self, clips: Tensor, latent_frames: int) -> Batch:
        """The first `latent_frames` latent frames of the clips with indices `clips`."""
        frames = torch.arange(latent_frames).expand(len(clips), -1)
        return self._batch(clips, frames, torch.zeros(len(clips), dtype=torch.bool))

    def _batch(self, clips: Tensor, frames: Tensor, drop: Tensor) -> Batch:
        """Latent frames [b, f] of clips [b] with their chunks' captions; the empty prompt where `drop` [b] is set."""
        x0, source = (
            None if t is None else t[clips[:, None], :, frames].transpose(1, 2).to(self.device).float()
            for t in (self.latents, self.sources)
        )
        assert x0 is not None
        rows = self.rows[clips[:, None], frames[:, :: self.chunk] // self.chunk]
        rows = rows.masked_fill(drop[:, None], 0)
        cover = None if self.covers is None else self.covers[clips[:, None], frames].to(self.device).float() / 255
        opens = (frames[:, 0] == 0).to(self.device) if self.openings else None
        return Batch(x0=x0, text=self.table(rows, self.device), source=source, cover=cover, opens=opens)

    def unconditional(self, num: int) -> TextStates:
        """Text states of the empty prompt for `num` clips, g = 1."""
        return self.table(torch.zeros(num, 1, dtype=torch.long), self.device)


def normal(shape: Sequence[int], rng: torch.Generator, device: torch.device) -> Tensor:
    """Unit Gaussian noise on `device` that depends on the state of the CPU generator `rng` alone."""
    if device.type == "cpu":
        return torch.randn(tuple(shape), generator=rng)
    # Drawing millions of numbers on the CPU would stall the device, so `rng` seeds a generator on the device.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    return torch.randn(tuple(shape), generator=torch.Generator(device).manual_seed(seed), device=device)


def pixels(pictures: UInt8[Tensor, "b f h w c"]) -> Video:
    """Pixels in [-1, 1] of a batch of uint8 clips."""
    return rearrange(pictures.float() / 127.5 - 1, "b f h w c -> b c f h w")
