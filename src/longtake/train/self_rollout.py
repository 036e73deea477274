"""Self-rollout: the student's rollout in training, with gradients (Self-Forcing, Huang et al. 2025, alg. 1).

Chunks are generated one after another through the cache, as at inference. All stop at the same random denoising step,
the exit step, and only that step has a gradient. Memory is written by a clean pass without gradient and enters later
chunks as a constant: no gradient flows through cached keys and values.

Where the prompt changes, the cache may be recomputed under the new prompt, as for a cue in a take (LongLive, Yang et
al. 2025).
"""

import torch
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.core.shapes import Latent, TextStates
from longtake.flow.path import x0_from_velocity
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import KVCache
from longtake.sample.denoise import Schedule, denoise
from longtake.sample.memory import CacheWriter


def self_rollout(
    dit: DiT,
    schedule: Schedule,
    stream: StreamConfig,
    text: TextStates,
    noise: Tensor,
    exit_step: int,
    scored: int,
    *,
    recache: bool = False,
) -> Latent:
    """x0 predictions of the last `scored` latent frames, [b, c, scored, h, w], with a gradient to the weights.

    Earlier latent frames are rolled out without a graph and only serve as memory.

    Args:
        dit: the student in training.
        schedule: noise levels, with the modulations of the student's *current* weights.
        stream: chunk, window and sink.
        text: text states [b, g, t, e], g = 1 or the number of chunks.
        noise: unit noise for every denoising step [steps, b, c, f, h, w].
        exit_step: index of the denoising step at which the chunks exit.
        scored: number of latent frames to return, a multiple of the chunk.
        recache: whether the cache is recomputed where the prompt of any clip of the batch changes.
    """
    num_frames = noise.shape[3]
    chunks = []
    writer = CacheWriter(dit, schedule.clean, stream)
    cache, newest, memory, words = KVCache(), None, None, text[:, :1]
    for start in range(0, num_frames, stream.chunk):
        own = slice(start, start + stream.chunk)
        group = min(start // stream.chunk, text.shape[1] - 1)
        before, words = words, text[:, group : group + 1]
        with torch.no_grad():
            memory_before, memory = memory, dit.project_text(words)
            if newest is not None and memory_before is not None:
                changed = recache and not torch.equal(words, before)
                cache = (
                    writer.recache(cache, newest, memory) if changed else writer.append(cache, newest, memory_before)
                )
            past = dit.rotated_context(cache, noise[0, :, :, own].shape)
            x_t = denoise(dit, schedule, memory, past, lambda i, own=own: noise[i, :, :, own], stop=exit_step)
        level = torch.full((len(x_t), 1), schedule.sigmas[exit_step], dtype=torch.float64, device=x_t.device)
        is_scored = start >= num_frames - scored
        with torch.set_grad_enabled(is_scored and torch.is_grad_enabled()):
            v = dit.forward_cached(x_t, dit.modulation(level), dit.project_text(words), past)
            x0 = x0_from_velocity(x_t, v, level.to(x_t))
        if is_scored:
            chunks.append(x0)
        newest = x0.detach()
    return torch.cat(chunks, 2)
