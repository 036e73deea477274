"""Autoregression: chunk after chunk, each on the memory of those before it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from longtake.core.configs import StreamConfig
from longtake.core.noise import noise_for
from longtake.core.shapes import Latent, Span, chunk_spans
from longtake.nets.dit import DiT, Modulation, TextMemory
from longtake.nets.kv_cache import KVCache
from longtake.sample.denoise import Schedule, denoise


@dataclass(frozen=True, slots=True)
class Step:
    """A finished chunk: where it stands and its clean latents."""

    span: Span
    latent: Latent  # x0, [1, c, chunk, h, w]


def rollout(
    dit: DiT,
    schedule: Schedule,
    stream: StreamConfig,
    text_for: Callable[[Span], TextMemory],
    shape: tuple[int, int],
    seed: int,
    *,
    num_chunks: int | None = None,
    cache: KVCache | None = None,
) -> Iterator[Step]:
    """Chunks of latents, for ever or `num_chunks` of them.

    A chunk is handed out before its clean pass, so that its frames are on their way while memory is
    written; the last chunk's clean pass is never run.

    Args:
        dit: the student.
        schedule: its noise levels.
        stream: chunk, window and sink.
        text_for: the prompt's memory at a chunk.
        shape: latent height and width.
        seed: of the take.
        num_chunks: to make; None: no end.
        cache: memory to go on from.
    """
    cache = cache or KVCache()
    size = (1, dit.config.in_dim, stream.chunk, *shape)
    first = cache.stop // stream.chunk
    for span in chunk_spans(stream.chunk, first):
        text = text_for(span)

        def noise(step: int, idx: int = span.idx) -> Latent:
            return noise_for(seed, ("chunk", idx, "step", step), size).to(dit.device, dit.latent_dtype)

        # The caller runs between the yields: inference mode must not leak into it.
        with torch.inference_mode():
            past = dit.past(cache, size)
            latent = denoise(dit, schedule, text, past, noise)
        yield Step(span, latent)
        if num_chunks is not None and span.idx + 1 == first + num_chunks:
            return
        with torch.inference_mode():
            cache = cache.append(dit.remember(latent, schedule.clean, text, past), stream)


def rebuilt(
    dit: DiT, clean: Modulation, kept: Sequence[tuple[int, Latent]], text: TextMemory, stream: StreamConfig
) -> KVCache:
    """Memory made anew of what was shown, under other words (recache: LongLive, Yang et al. 2025, sec. 3.1).

    Args:
        dit: the student.
        clean: modulation of its clean pass.
        kept: clean latents and the latent frame of the take at which each begins, in order.
        text: cross-attention memory of the prompt that holds from now on.
        stream: chunk, window and sink.
    """
    cache = KVCache()
    for start, latent in kept:
        cache = replace(cache, stop=start)
        cache = cache.append(dit.remember(latent, clean, text, dit.past(cache, latent.shape)), stream)
    return cache
