"""A take made chunk by chunk from outside: memory in, one chunk and the memory after it out.

`generate` tells the tale of one take from beginning to end. Here every chunk is asked for on its own, under its own
prompt, from any memory that was kept; so a take can be steered, gone back to and branched. Memory is a value.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.clock import Stopwatch
from longtake.core.configs import Preset
from longtake.core.errors import InputError, ShapeError
from longtake.core.noise import noise_for
from longtake.core.shapes import Latent, Pictures, PictureSize, Video
from longtake.flow.schedule import sigmas_of
from longtake.media.frames import from_pictures, to_pictures
from longtake.nets.dit import TextMemory
from longtake.nets.kv_cache import KVCache
from longtake.nets.light_codec import CodecState
from longtake.sample.denoise import Schedule, denoise
from longtake.sample.generate import Model
from longtake.sample.plans import ChunkPlan, Wording

Piece = Float[Tensor, "1 c _ h w"]  # latents of a chunk, or of a part of one

KEPT_WORDINGS = 4  # whose cross-attention memory stays: two prompts of a fade, and those around it


@dataclass(frozen=True, slots=True)
class Memory:
    """What a take remembers after a chunk.

    The clean pass that writes a chunk's keys and values is left to the next chunk: the frames are out by then, and
    a cue that rebuilds memory makes it unnecessary.
    """

    cache: KVCache = field(default_factory=KVCache)  # without the newest chunk
    latents: tuple[Piece, ...] = ()  # of the cache's blocks, one each
    newest: Piece | None = None
    wording: Wording = ()  # that the newest chunk was made under
    decoder: CodecState = field(default_factory=CodecState)

    def tensors(self) -> dict[int, Tensor]:
        """Every tensor that is held, by identity: memories share most of them."""
        held = [t for block in self.cache.blocks for t in (block.k, block.v)]
        held += [*self.latents, *self.decoder.frames]
        if self.newest is not None:
            held.append(self.newest)
        return {id(tensor): tensor for tensor in held}

    def to(self, device: torch.device) -> "Memory":
        """The same memory on another device; itself when it is there."""
        if all(tensor.device == device for tensor in self.tensors().values()):
            return self
        return self.moved(lambda tensor: tensor.to(device))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Memory":
        """The same memory with every tensor replaced by what `move` makes of it."""
        return replace(
            self,
            cache=replace(self.cache, blocks=tuple(replace(b, k=move(b.k), v=move(b.v)) for b in self.cache.blocks)),
            latents=tuple(move(latent) for latent in self.latents),
            newest=None if self.newest is None else move(self.newest),
            decoder=replace(self.decoder, frames=tuple(move(frame) for frame in self.decoder.frames)),
        )


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished chunk."""

    latent: Latent
    pictures: Pictures
    memory: Memory
    timings: dict[str, float]  # seconds: text, memory, denoise, decode; or encode


GoOn = Callable[[bool], bool]  # (denoising is done) -> is the chunk still wanted?


class OvertakenError(Exception):
    """A chunk was given up while it was made, because it was no longer wanted. Nothing has changed."""


def always(done: bool) -> bool:
    """The answer of one who never changes their mind."""
    del done
    return True


class Sampler:
    """A model and a picture size, ready to make chunks. Nothing of any take is kept here."""

    def __init__(self, model: Model, size: PictureSize | None = None) -> None:
        """Args: model: a student; size: of the pictures, None: what it was trained on.

        Raises:
            InputError: the model is a teacher, or the size does not fit it.
        """
        if model.is_teacher:
            raise InputError("a teacher makes whole clips; open the student to direct a take")
        self.model = model
        self.size = size or model.size
        self.stream = model.preset.stream
        self.device = model.dit.device
        height, width = self.size.latent(model.preset.codec.stride, model.preset.dit.patch)
        self.shape = (1, model.preset.dit.in_dim, self.stream.chunk, height, width)
        self._schedules: dict[tuple[int | None, float], Schedule] = {}
        self._words: OrderedDict[Wording, TextMemory] = OrderedDict()

    @property
    def preset(self) -> Preset:
        return self.model.preset

    @torch.inference_mode()
    def make(
        self,
        memory: Memory,
        plan: ChunkPlan,
        source: Latent | None = None,
        known: Latent | None = None,
        go_on: GoOn = always,
    ) -> Made:
        """The next chunk.

        Args:
            memory: after the chunk before it; `Memory()` at the start.
            plan: what is wanted. Its picture is not looked at: see `after_pictures`.
            source: latents of the chunk's shape that it shall follow, entering at `plan.strength`.
            known: the chunk itself, made before: only the memory after it is wanted.
            go_on: asked before each denoising step, and once after the last.

        Raises:
            OvertakenError: it said no.
        """
        watch = Stopwatch(self._settle)
        with watch.span("text"):
            self.read(plan.wording)
        with watch.span("memory"):
            cache, latents = self._before(memory, plan)
        with watch.span("denoise"):
            latent = self._denoised(cache, plan, source, go_on) if known is None else known.to(self.device)
        with watch.span("decode"):
            decoder = CodecState() if plan.transition == "cut" else memory.decoder
            frames, decoder = self.model.codec.decode(latent, decoder)
            pictures = to_pictures(frames)
        after = Memory(cache, latents, latent, plan.wording, decoder)
        return Made(latent=latent, pictures=pictures, memory=after, timings=watch.read())

    @torch.inference_mode()
    def after_pictures(self, pictures: Pictures, wording: Wording, first_idx: int = 0) -> Made:
        """Chunks that are given, not made: the pictures as the codec gives them back, and the memory after them.

        Args:
            pictures: of the sampler's size, as many as whole chunks hold: 9, 21, ... for chunks of 3 latent frames.
            wording: what they show.
            first_idx: chunk at which they stand.
        """
        watch = Stopwatch(self._settle)
        with watch.span("encode"):
            latent, _ = self.model.codec.encode(self._video(pictures), CodecState())
        num_latent = latent.shape[2]
        if num_latent % self.stream.chunk:
            raise ShapeError(f"{num_latent} latent frames are not a whole number of chunks of {self.stream.chunk}")
        with watch.span("decode"):
            frames, decoder = self.model.codec.decode(latent, CodecState())
            shown = to_pictures(frames)
        with watch.span("memory"):
            *earlier, newest = latent.split(self.stream.chunk, 2)
            cache, latents = self._written(KVCache(stop=first_idx * self.stream.chunk), (), earlier, wording)
        after = Memory(cache, latents, newest, wording, decoder)
        return Made(latent=latent, pictures=shown, memory=after, timings=watch.read())

    @torch.inference_mode()
    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        """Latents of the next pictures of a source video; see `LightCodec.encode`."""
        return self.model.codec.encode(self._video(pictures), state)

    @torch.inference_mode()
    def decode(self, latent: Latent, state: CodecState) -> tuple[Pictures, CodecState]:
        """Pictures of latents that were made before."""
        frames, state = self.model.codec.decode(latent.to(self.device), state)
        return to_pictures(frames), state

    def read(self, wording: Wording) -> TextMemory:
        """Cross-attention memory of a mixture of prompts: their states, averaged by weight."""
        if wording not in self._words:
            states = [self.model.text_encoder(prompt) * weight for prompt, weight in wording]
            self._words[wording] = self.model.dit.read_text(torch.stack(states).sum(0).to(self.device))
            while len(self._words) > KEPT_WORDINGS:
                self._words.popitem(last=False)
        self._words.move_to_end(wording)
        return self._words[wording]

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _denoised(self, cache: KVCache, plan: ChunkPlan, source: Latent | None, go_on: GoOn) -> Latent:
        dit = self.model.dit
        schedule = self._schedule(plan.steps, plan.strength if source is not None else 1.0)

        def noise(step: int) -> Latent:
            if not go_on(False):
                raise OvertakenError
            return noise_for(plan.seed, ("chunk", plan.idx, "step", step), self.shape).to(self.device, dit.latent_dtype)

        past = dit.past(cache, self.shape)
        latent = denoise(dit, schedule, self.read(plan.wording), past, noise, source=source)
        if not go_on(True):
            raise OvertakenError
        return latent

    # Memory before a chunk.

    def _before(self, memory: Memory, plan: ChunkPlan) -> tuple[KVCache, tuple[Piece, ...]]:
        """The clean pass that was left over, or what the transition makes of the past."""
        cache, latents, newest = memory.cache, memory.latents, memory.newest
        start = plan.idx * self.stream.chunk
        if newest is None or plan.transition == "cut":
            return KVCache(stop=start), ()
        if plan.transition == "recache":
            oldest = start + self.stream.chunk + self.stream.sink - self.stream.window
            kept = [*zip((block.start for block in cache.blocks), latents, strict=True), (cache.stop, newest)]
            return self._rebuilt([k for k in kept if k[0] < self.stream.sink or k[0] >= oldest], plan.wording)
        if plan.transition == "flush":
            in_sink = tuple(b for b in cache.blocks if b.start < self.stream.sink)
            kept_latents = latents[: len(in_sink)]
            last = newest[:, :, -1:]
            return self._appended(KVCache(in_sink, start - 1), kept_latents, last, plan.wording)
        return self._written(cache, latents, (newest,), memory.wording)

    def _written(
        self, cache: KVCache, latents: tuple[Piece, ...], newer: Sequence[Piece], wording: Wording
    ) -> tuple[KVCache, tuple[Piece, ...]]:
        """The cache with the blocks of newer chunks."""
        for latent in newer:
            cache, latents = self._appended(cache, latents, latent, wording)
        return cache, latents

    def _rebuilt(self, kept: Sequence[tuple[int, Piece]], wording: Wording) -> tuple[KVCache, tuple[Piece, ...]]:
        """Blocks made anew of latents, under another wording, at the places they had in the take."""
        cache, latents = KVCache(), ()
        for start, latent in kept:
            cache, latents = self._appended(replace(cache, stop=start), latents, latent, wording)
        return cache, latents

    def _appended(
        self, cache: KVCache, latents: tuple[Piece, ...], latent: Piece, wording: Wording
    ) -> tuple[KVCache, tuple[Piece, ...]]:
        """One clean pass. What leaves the window takes its latents along."""
        dit = self.model.dit
        past = dit.past(cache, latent.shape)
        block = dit.remember(latent, self._schedule(None, 1.0).clean, self.read(wording), past)
        after = cache.append(block, self.stream)
        by_start = {b.start: x for b, x in zip((*cache.blocks, block), (*latents, latent), strict=True)}
        return after, tuple(by_start[b.start] for b in after.blocks)

    def _schedule(self, steps: int | None, entry: float) -> Schedule:
        key = (steps, entry)
        if key not in self._schedules:
            sigmas = sigmas_of(self.preset.student.with_steps(steps))
            levels = sigmas if entry == 1.0 else (entry, *(s for s in sigmas if s < entry))
            self._schedules[key] = Schedule.at(self.model.dit, levels)
        return self._schedules[key]

    def _video(self, pictures: Pictures) -> Video:
        _, height, width, _ = pictures.shape
        if (height, width) != (self.size.height, self.size.width):
            raise ShapeError(f"the pictures are {width}x{height}, the take is {self.size}; resize them first")
        return from_pictures(pictures).to(self.device, self.model.dit.latent_dtype)
