"""Sampler of chunks: from a memory and a plan to pictures and the memory after them.

`Sampler.step` is the only function that makes chunks, of one take or of several takes of equal layout. Its parts are
text, memory (`sample/memory.py`), denoising (`sample/denoise.py`) and decoding. The sampler holds no state of a take:
memory is an immutable value, so takes can be steered, rewound and branched.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from longtake.core.clock import Stopwatch
from longtake.core.configs import Preset, StreamConfig
from longtake.core.cue import Scales, Settings
from longtake.core.errors import InputError, ShapeError
from longtake.core.noise import noise_for
from longtake.core.shapes import Latent, Pictures, PictureSize, Video
from longtake.core.threads import compute_with
from longtake.flow.schedule import sigmas_of
from longtake.media.frames import from_pictures, to_pictures
from longtake.nets.blocks import TextKV
from longtake.nets.codec import Codec
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import KVCache
from longtake.nets.light_codec import CodecState
from longtake.nets.text import TextEncoder
from longtake.sample.denoise import Guidance, Schedule, denoise
from longtake.sample.memory import CacheWriter, Memory, joined_cache, joined_state, joined_text, split_cache
from longtake.sample.model import Model
from longtake.sample.plans import ChunkPlan, InitFrames, Wording
from longtake.sample.window import LatentWindow
from longtake.weights.live_loras import LiveLoras
from longtake.weights.plan import KEPT_WORDINGS

ShouldContinue = Callable[[bool], bool]  # function of whether denoising is done -> whether the chunk is still wanted


def never_cancel(done: bool) -> bool:
    """`ShouldContinue` function of chunks that are never cancelled."""
    del done
    return True


class CancelledChunkError(Exception):
    """A chunk was cancelled while it was being made; no state has changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkRequest:
    """One take's request to a step of the sampler."""

    plan: ChunkPlan
    memory: Memory = field(default_factory=Memory)  # memory after the previous chunk; empty at the start
    source: Latent | None = None  # source latents of the chunk's shape, noised to `plan.strength`
    known: Latent | None = None  # the chunk's latents if made before, to recompute only the memory
    window: LatentWindow | None = None  # the latents to rebuild the memory from, where the plan says so
    should_continue: ShouldContinue = never_cancel  # called before each denoising step, and once after the last

    def layout(self, stream: StreamConfig) -> tuple[object, ...] | None:
        """Key under which requests can share a step; None: the request needs a step of its own."""
        plan = self.plan
        if plan.given is not None or self.known is not None or plan.rebuilt:
            return None
        settings = plan.settings
        alike = settings.steps, settings.guidance, settings.loras, plan.strength, plan.transition, plan.threads
        return (*alike, self.memory.layout(stream))


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """Finished chunk."""

    latent: Latent
    pictures: Pictures
    memory: Memory
    timings: dict[str, float]  # seconds by part: text, memory, denoise, decode; encode for given pictures


class Student:
    """Causal network with caches of its schedules and of the cross-attention keys and values of prompts."""

    def __init__(self, dit: DiT, preset: Preset, text_encoder: TextEncoder) -> None:
        self.dit = dit
        self.preset = preset
        self.scales: Scales = ()  # scales of the LoRAs by which the network is corrected, see `Sampler.step`
        self._text_encoder = text_encoder
        self._schedules: dict[tuple[Scales, int | None, float, bool], Schedule] = {}
        self._texts: OrderedDict[tuple[Scales, Wording], TextKV] = OrderedDict()

    @property
    def writer(self) -> CacheWriter:
        return CacheWriter(self.dit, self.schedule().clean, self.preset.stream)

    def schedule(self, steps: int | None = None, entry: float = 1.0, *, first: bool = False) -> Schedule:
        """Schedule of `steps` steps (None: the preset's), entered at noise level `entry` (a source's strength).

        `first` asks for that of a chunk without memory before it.
        """
        key = (self.scales, steps, entry, first)
        if key not in self._schedules:
            sigmas = sigmas_of(self.preset.student.with_steps(steps), first=first)
            levels = sigmas if entry == 1.0 else (entry, *(s for s in sigmas if s < entry))
            self._schedules[key] = Schedule.at(self.dit, levels)
        return self._schedules[key]

    def text(self, wording: Wording) -> TextKV:
        """Cross-attention keys and values of the weighted mean of the prompts' states."""
        key = (self.scales, wording)
        if key not in self._texts:
            states = [self._text_encoder(prompt) * weight for prompt, weight in wording]
            mixed = torch.stack(states).sum(0).to(self.dit.device, self.dit.latent_dtype)
            self._texts[key] = self.dit.project_text(mixed, merge_padding=True)
            while len(self._texts) > KEPT_WORDINGS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def guidance(self, takes: Sequence[Settings]) -> Guidance | None:
        """Guidance of a batch of takes of equal scale, with their negative prompts; None if the scale is 1."""
        if takes[0].guidance == 1:
            return None
        own = self.preset.negative_prompt
        negative = [own if take.negative_prompt is None else take.negative_prompt for take in takes]
        return Guidance(takes[0].guidance, joined_text([self.text(((prompt, 1.0),)) for prompt in negative]))


class Sampler:
    """Sampler of chunks with the networks of one model at one picture size."""

    def __init__(
        self,
        preset: Preset,
        dit: DiT,
        codec: Codec,
        text_encoder: TextEncoder,
        *,
        source_adapter: DiT | None = None,
        loras: LiveLoras | None = None,
        size: PictureSize | None = None,
    ) -> None:
        """Create a sampler.

        Args:
            preset: preset of the model.
            dit: the student.
            codec: its codec.
            text_encoder: its text encoder.
            source_adapter: network for takes that follow a source; None: `dit`.
            loras: LoRAs of these networks, if any.
            size: picture size; None: the size that the model was trained on.

        Raises:
            InputError: the size does not fit the model.
        """
        self.preset = preset
        self.codec = codec
        self.size = size or preset.size
        self.stream = preset.stream
        self.device = dit.device
        self.loras = loras
        self.student = Student(dit, preset, text_encoder)
        self.follower = self.student if source_adapter is None else Student(source_adapter, preset, text_encoder)
        height, width = preset.latent_grid(self.size)
        self.shape = (1, preset.dit.in_dim, self.stream.chunk, height, width)

    @classmethod
    def of(cls, model: Model, size: PictureSize | None = None) -> "Sampler":
        """Create the sampler of an opened model.

        Raises:
            InputError: the model is a teacher, or the size does not fit it.
        """
        if model.is_teacher:
            raise InputError("a teacher makes whole clips; open the student to direct a take")
        return cls(
            model.preset,
            model.dit,
            model.codec,
            model.text_encoder,
            source_adapter=model.source_adapter,
            loras=model.loras,
            size=size,
        )

    @torch.inference_mode()
    def step(self, requests: Sequence[ChunkRequest]) -> list[ChunkResult | None]:
        """Make the next chunk of one or several takes, with one batched pass of the networks for all.

        Args:
            requests: one request, or several of equal layout that is not None.

        Returns:
            A result per request, None for a cancelled one. Timings are those of the whole step.

        Raises:
            ShapeError: pictures or latents have the wrong size.
        """
        first = requests[0]
        compute_with(first.plan.threads)
        self._adapt(first.plan.settings.loras)
        if first.plan.given is not None:
            return [self._prefill(first, first.plan.given) if first.should_continue(True) else None]
        student = self.student if first.plan.strength is None else self.follower
        if first.window is not None:  # alone in its step, see `ChunkRequest.layout`
            requests = [replace(first, memory=self._rebuilt(student, first.window))]
        plans = [request.plan for request in requests]
        watch = Stopwatch(self._synchronise)
        with watch.span("text"):
            text = joined_text([student.text(plan.wording) for plan in plans])
        with watch.span("memory"):
            caches = self._caches(student, requests, text)
        with watch.span("denoise"):
            latents, wanted = self._latents(student, requests, joined_cache(caches), text)
        if not any(wanted):
            return [None] * len(requests)
        with watch.span("decode"):
            states = [
                CodecState() if plan.transition == "cut" else r.memory.decoder
                for plan, r in zip(plans, requests, strict=True)
            ]
            frames, state = self.codec.decode(latents, joined_state(states))
            pictures = [to_pictures(clip[None]) for clip in frames]
        timings = watch.read()
        results: list[ChunkResult | None] = []
        for i, (plan, cache) in enumerate(zip(plans, caches, strict=True)):
            own = [t if len(requests) == 1 else t[i : i + 1].clone() for t in (latents, *state.frames)]
            decoder = replace(state, frames=tuple(own[1:]))
            memory = Memory(cache, own[0], plan.wording, decoder)
            result = ChunkResult(latent=own[0], pictures=pictures[i], memory=memory, timings=timings)
            results.append(result if wanted[i] else None)
        return results

    def _adapt(self, scales: Scales) -> None:
        """Correct the networks by LoRAs at these scales; what is derived from their weights is kept for each scale."""
        if self.loras is not None:
            self.loras.set(scales)
            self.student.scales = self.follower.scales = scales

    @torch.inference_mode()
    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        """Encode the next pictures of a source video; see `LightCodec.encode`."""
        return self.codec.encode(self._video(pictures), state)

    @torch.inference_mode()
    def decode(self, latent: Latent, state: CodecState) -> tuple[Pictures, CodecState]:
        """Decode latents to pictures."""
        frames, state = self.codec.decode(latent.to(self.device), state)
        return to_pictures(frames), state

    @torch.inference_mode()
    def decoder_after(self, window: LatentWindow) -> CodecState:
        """State of the decoder after the latents of a window, without those before its last gap."""
        state = CodecState()
        for _, latent in window.pieces[window.num_apart :]:
            _, state = self.codec.decode(latent.to(self.device, self.student.dit.latent_dtype), state)
        return state

    def _caches(self, student: Student, requests: Sequence[ChunkRequest], text: TextKV) -> list[KVCache]:
        """Cache of each take for its next chunk, after the deferred clean pass or the transition."""
        plan, memories = requests[0].plan, [request.memory for request in requests]
        caches = [memory.cache for memory in memories]
        pieces = [memory.newest for memory in memories if memory.newest is not None]
        if not pieces or plan.transition == "cut":
            return [KVCache(stop=request.plan.idx * self.stream.chunk) for request in requests]
        joined, newest = joined_cache(caches), torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        if plan.transition == "recache":
            after = student.writer.recache(joined, newest, text)
        elif plan.transition == "flush":
            after = student.writer.flush(joined, newest, text)
        else:
            before = joined_text([student.text(memory.wording) for memory in memories])
            after = student.writer.append(joined, newest, before)
        return split_cache(after, joined, caches)

    def _latents(
        self, student: Student, requests: Sequence[ChunkRequest], cache: KVCache, text: TextKV
    ) -> tuple[Latent, list[bool]]:
        """Denoise the chunks; returns x0 and whether each chunk is still wanted."""
        plan, known = requests[0].plan, requests[0].known
        wanted = [True] * len(requests)
        if known is not None:
            return known.to(self.device), wanted

        def ask(*, done: bool) -> None:
            for i, request in enumerate(requests):
                wanted[i] = wanted[i] and request.should_continue(done)

        def noise(step: int) -> Latent:
            ask(done=False)
            if not any(wanted):
                raise CancelledChunkError
            eps = [noise_for(r.plan.settings.seed, ("chunk", r.plan.idx, "step", step), self.shape) for r in requests]
            return torch.cat(eps).to(self.device, student.dit.latent_dtype)

        sources = [request.source for request in requests if request.source is not None]
        schedule = student.schedule(plan.settings.steps, plan.strength or 1.0, first=not cache.blocks)
        past = student.dit.rotated_context(cache, (len(requests), *self.shape[1:]))
        try:
            latents = denoise(
                student.dit,
                schedule,
                text,
                past,
                noise,
                source=torch.cat(sources) if sources else None,
                guidance=student.guidance([request.plan.settings for request in requests]),
            )
        except CancelledChunkError:
            return torch.zeros(len(requests), *self.shape[1:], device=self.device), wanted
        ask(done=True)
        return latents, wanted

    def _prefill(self, request: ChunkRequest, given: InitFrames) -> ChunkResult:
        """Encode given pictures and prefill the memory; returns them as the codec decodes them."""
        pictures, student = given.pictures, self.student
        if given.frames == 1:  # an image is repeated to fill a chunk, the smallest unit of the network
            pictures = pictures.expand(self.preset.codec.stride.frames(self.stream.chunk), -1, -1, -1)
        watch = Stopwatch(self._synchronise)
        with watch.span("encode"):
            latent, _ = self.codec.encode(self._video(pictures), CodecState())
        if latent.shape[2] != given.chunks * self.stream.chunk:
            raise ShapeError(
                f"{len(pictures)} pictures are {latent.shape[2]} latent frames, not {given.chunks} chunks of "
                f"{self.stream.chunk}"
            )
        with watch.span("decode"):
            frames, decoder = self.codec.decode(latent, CodecState())
            shown = to_pictures(frames)
        with watch.span("memory"):
            *earlier, newest = latent.split(self.stream.chunk, 2)
            start = (request.plan.idx - given.chunks + 1) * self.stream.chunk
            cache = student.writer.prefill(earlier, student.text(request.plan.wording), start)
        memory = Memory(cache, newest, request.plan.wording, decoder)
        return ChunkResult(latent=latent, pictures=shown, memory=memory, timings=watch.read())

    def _rebuilt(self, student: Student, window: LatentWindow) -> Memory:
        """Memory recomputed from the latents of a window, a pure function of them and of their text."""
        where = self.device, student.dit.latent_dtype
        *earlier, (stop, newest) = [(start, latent.to(*where)) for start, latent in window.pieces]
        cache = student.writer.rebuild(earlier, student.text(window.wording), stop)
        return Memory(cache, newest, window.wording, self.decoder_after(window))

    def _synchronise(self) -> None:
        """Wait for the device, so that timings are those of finished work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _video(self, pictures: Pictures) -> Video:
        _, height, width, _ = pictures.shape
        if (height, width) != (self.size.height, self.size.width):
            raise ShapeError(f"the pictures are {width}x{height}, the take is {self.size}; resize them first")
        return from_pictures(pictures).to(self.device, self.student.dit.latent_dtype)


def rollout(sampler: Sampler, plans: Iterable[ChunkPlan], memory: Memory | None = None) -> Iterator[ChunkResult]:
    """Make the chunks of plans that are known in advance, lazily, continuing from `memory`."""
    memory = memory or Memory()
    for plan in plans:
        (result,) = sampler.step([ChunkRequest(plan=plan, memory=memory)])
        assert result is not None, "nothing cancels it"
        yield result
        memory = result.memory
