"""The window of a take: which latent frames its memory holds after a chunk, and those latents.

The memory of a take that is moved to another process is rebuilt from these latents alone, however long the take is.
`kept_frames` mirrors the transitions of `sample/memory.py` on numbers of latent frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.nets.kv_cache import is_kept
from longtake.sample.plans import ChunkPlan, Wording

Frames = tuple[int, int]  # first latent frame in the take, and the one after the last


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentWindow:
    """Latents that a memory is rebuilt from, the newest chunk's last, each with its first latent frame."""

    pieces: tuple[tuple[int, Tensor], ...]
    wording: Wording  # text of the newest chunk
    num_apart: int  # pieces at the front with a gap after them (the sink), which the decoder does not continue from


def kept_frames(plans: Iterable[ChunkPlan], stream: StreamConfig) -> list[Frames]:
    """Latent frames in the memory after chunks, piece by piece, those of the newest chunk last.

    Args:
        plans: plans of all chunks from the beginning of a take.
        stream: chunk, window and sink of the model.
    """
    kept: list[Frames] = []
    for plan in plans:
        start = plan.idx * stream.chunk
        newest = (start, start + stream.chunk)
        if plan.given is not None:
            first = plan.idx - plan.given.chunks + 1
            pieces = [(i * stream.chunk, (i + 1) * stream.chunk) for i in range(first, plan.idx)]
        elif plan.transition == "cut":
            pieces = []
        elif plan.transition == "flush" and kept:
            pieces = [piece for piece in kept[:-1] if piece[0] < stream.sink] + [(kept[-1][1] - 1, kept[-1][1])]
        else:
            pieces = kept
        kept = [*(piece for piece in pieces if is_kept(piece[0], start, stream)), newest]
    return kept


def num_apart(pieces: list[Frames]) -> int:
    """Number of pieces before the last gap in time."""
    gaps = [i for i, (one, other) in enumerate(pairwise(pieces), 1) if one[1] != other[0]]
    return gaps[-1] if gaps else 0
