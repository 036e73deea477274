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
from longtake.nets.dit import Modulation, Past, TextMemory
from longtake.nets.kv_cache import Block, KVCache
from longtake.nets.light_codec import CodecState
from longtake.sample.denoise import Guidance, Schedule, denoise
from longtake.sample.generate import Model
from longtake.sample.plans import ChunkPlan, Wording
from longtake.sample.rollout import rebuilt
from longtake.weights.plan import KEPT_WORDINGS

Piece = Float[Tensor, "1 c _ h w"]  # latents of a chunk, or of a part of one


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


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A chunk of one of several takes that are made together."""

    memory: Memory
    plan: ChunkPlan
    go_on: GoOn


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
        height, width = model.preset.latent_grid(self.size)
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

    def layout(self, memory: Memory, plan: ChunkPlan) -> tuple[object, ...] | None:
        """Chunks of equal layout can be made together; None: this one is made alone."""
        if plan.transition is not None or plan.given is not None:
            return None
        blocks = tuple(len(block) for block in memory.cache.blocks)
        return (
            plan.steps,
            plan.guidance,
            blocks,
            memory.newest is None,
            tuple(frame.shape for frame in memory.decoder.frames),
        )

    @torch.inference_mode()
    def make_together(self, wanted: Sequence[Wanted]) -> list[Made | None]:
        """The next chunks of several takes, each pass of the networks made once for all of them.

        Args:
            wanted: of one `layout`.

        Returns:
            a chunk for each; None for one that was overtaken. Its timings are those of all together.
        """
        watch = Stopwatch(self._settle)
        with watch.span("text"):
            text = joined_text([self.read(w.plan.wording) for w in wanted])
        with watch.span("memory"):
            befores = self._before_together([w.memory for w in wanted])
        with watch.span("denoise"):
            go_ons = [w.go_on for w in wanted]
            past = self.model.dit.past(joined_cache([cache for cache, _ in befores]), self.shape)
            latents, kept = self._denoised_together(text, past, [w.plan for w in wanted], go_ons)
        with watch.span("decode"):
            state = joined_state([w.memory.decoder for w in wanted])
            frames, state = self.model.codec.decode(latents, state)
            pictures = [to_pictures(clip[None]) for clip in frames]
        timings = watch.read()
        made: list[Made | None] = []
        for i, (w, (cache, known)) in enumerate(zip(wanted, befores, strict=True)):
            decoder = replace(state, frames=tuple(frame[i : i + 1].clone() for frame in state.frames))
            latent = latents[i : i + 1].clone()
            after = Memory(cache, known, latent, w.plan.wording, decoder)
            made.append(Made(latent=latent, pictures=pictures[i], memory=after, timings=timings) if kept[i] else None)
        return made

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
        past = self.model.dit.past(cache, self.shape)
        latent, (kept,) = self._denoised_together(self.read(plan.wording), past, [plan], [go_on], source)
        if not kept:
            raise OvertakenError
        return latent

    def _denoised_together(
        self,
        text: TextMemory,
        past: Past,
        plans: Sequence[ChunkPlan],
        go_ons: Sequence[GoOn],
        source: Latent | None = None,
    ) -> tuple[Latent, list[bool]]:
        """The chunks of several takes, and which of them are still wanted; of one, it may follow a source."""
        schedule = self._schedule(plans[0].steps, plans[0].strength or 1.0)
        guidance = self._guidance(plans[0].guidance, len(plans))
        kept = [True] * len(plans)

        def ask(*, done: bool) -> None:
            for i, go_on in enumerate(go_ons):
                kept[i] = kept[i] and go_on(done)

        def noise(step: int) -> Latent:
            ask(done=False)
            if not any(kept):
                raise OvertakenError
            eps = [noise_for(plan.seed, ("chunk", plan.idx, "step", step), self.shape) for plan in plans]
            return torch.cat(eps).to(self.device, self.model.dit.latent_dtype)

        try:
            latents = denoise(self.model.dit, schedule, text, past, noise, source=source, guidance=guidance)
        except OvertakenError:
            return torch.zeros(len(plans), *self.shape[1:], device=self.device), kept
        ask(done=True)
        return latents, kept

    def _guidance(self, scale: float, num: int) -> Guidance | None:
        """Away from the negative prompt, for `num` takes of one layout."""
        if scale == 1:
            return None
        uncond = self.read(((self.preset.negative_prompt, 1.0),))
        return Guidance(scale, joined_text([uncond] * num))

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
            kept = [k for k in kept if k[0] < self.stream.sink or k[0] >= oldest]
            clean = self._schedule(None, 1.0).clean
            cache = rebuilt(self.model.dit, clean, kept, self.read(plan.wording), self.stream)
            return cache, tuple(latent for _, latent in kept)
        if plan.transition == "flush":
            in_sink = tuple(b for b in cache.blocks if b.start < self.stream.sink)
            kept_latents = latents[: len(in_sink)]
            last = newest[:, :, -1:]
            return self._appended(KVCache(in_sink, start - 1), kept_latents, last, plan.wording)
        return self._written(cache, latents, (newest,), memory.wording)

    def _before_together(self, memories: Sequence[Memory]) -> list[tuple[KVCache, tuple[Piece, ...]]]:
        """The clean passes that were left over, as one."""
        if memories[0].newest is None:
            return [(memory.cache, memory.latents) for memory in memories]
        newest = torch.cat([memory.newest for memory in memories if memory.newest is not None])
        text = joined_text([self.read(memory.wording) for memory in memories])
        past = self.model.dit.past(joined_cache([memory.cache for memory in memories]), newest.shape)
        blocks = self.model.dit.remember(newest, self._schedule(None, 1.0).clean, text, past)
        after = []
        for i, memory in enumerate(memories):
            start, own = memory.cache.stop, slice(i, i + 1)
            block = Block(blocks.k[:, own].clone(), blocks.v[:, own].clone(), start, start + len(blocks))
            after.append(self._with_block(memory.cache, memory.latents, block, newest[own]))
        return after

    def _written(
        self, cache: KVCache, latents: tuple[Piece, ...], newer: Sequence[Piece], wording: Wording
    ) -> tuple[KVCache, tuple[Piece, ...]]:
        """The cache with the blocks of newer chunks."""
        for latent in newer:
            cache, latents = self._appended(cache, latents, latent, wording)
        return cache, latents

    def _appended(
        self, cache: KVCache, latents: tuple[Piece, ...], latent: Piece, wording: Wording
    ) -> tuple[KVCache, tuple[Piece, ...]]:
        """One clean pass. What leaves the window takes its latents along."""
        dit = self.model.dit
        past = dit.past(cache, latent.shape)
        block = dit.remember(latent, self._schedule(None, 1.0).clean, self.read(wording), past)
        return self._with_block(cache, latents, block, latent)

    def _with_block(
        self, cache: KVCache, latents: tuple[Piece, ...], block: Block, latent: Latent
    ) -> tuple[KVCache, tuple[Piece, ...]]:
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


def joined_text(texts: Sequence[TextMemory]) -> TextMemory:
    """Memories of texts, one a take, side by side."""
    layers = range(len(texts[0].k))
    k = tuple(torch.cat([text.k[layer] for text in texts]) for layer in layers)
    v = tuple(torch.cat([text.v[layer] for text in texts]) for layer in layers)
    added = [text.modulation for text in texts if text.modulation is not None]
    modulation = None
    if added:
        modulation = Modulation(torch.cat([m.blocks for m in added]), torch.cat([m.head for m in added]))
    return TextMemory(k, v, texts[0].groups, modulation)


def joined_cache(caches: Sequence[KVCache]) -> KVCache:
    """Caches of equal layout side by side. Places are relative to the cache, so the takes may be of any age."""
    blocks = []
    for alike in zip(*(cache.blocks for cache in caches), strict=True):
        first = alike[0]
        k, v = torch.cat([block.k for block in alike], 1), torch.cat([block.v for block in alike], 1)
        blocks.append(Block(k, v, first.start, first.stop))
    return KVCache(tuple(blocks), caches[0].stop)


def joined_state(states: Sequence[CodecState]) -> CodecState:
    """A codec's states, one a take, side by side."""
    frames = zip(*(state.frames for state in states), strict=True)
    return CodecState(tuple(torch.cat(alike) for alike in frames), states[0].started)
