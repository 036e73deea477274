"""Laws of directing a take, bit for bit, on random weights."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import longtake
from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import Pictures
from longtake.media.clips import read_video
from longtake.sample.cues import TimedPrompt
from longtake.sample.model import open_model
from longtake.sample.plans import ChunkPlan, InitFrames
from longtake.sample.sampler import ChunkRequest
from longtake.studio.generate import generate
from longtake.studio.snapshots import HostCopies
from longtake.studio.sources import IteratorSource, LiveSource
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import path_to
from tests.tiny import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def studio(folder: Path) -> Iterator[Studio]:
    with longtake.open(str(folder)) as studio:
        yield studio


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def frames(take: Take, chunks: int) -> list[Pictures]:
    return [chunk.frames for chunk in take.stream(chunks=chunks)]


def same(a: list[Pictures], b: list[Pictures]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def directed(studio: Studio) -> Take:
    """A take with something of everything ahead of it."""
    take = studio.take("a tiger walks", seed=3)
    take.cue("snow falls", at=2)
    take.cue("night", at=4, transition="flush")
    take.cue("a car", at=6, transition="cut")
    take.cue("fog", at=7, fade=3)
    take.cue(seed=9, steps=1, at=8)
    take.cue(guidance=2.5, at=9)
    return take


def test_a_take_without_cues_is_what_generate_makes(studio: Studio) -> None:
    plain = generate(studio.model, [TimedPrompt(at_s=0, prompt="a tiger walks")], seconds=4.0, seed=5)
    assert same([chunk.frames for chunk in plain], frames(studio.take("a tiger walks", seed=5), 6))


def test_guidance_of_one_is_the_students_own_word_and_zero_does_not_read_the_prompt(studio: Studio) -> None:
    own = frames(studio.take("a tiger walks", seed=5), 3)
    assert same(frames(studio.take("a tiger walks", seed=5, guidance=1), 3), own)
    further = frames(studio.take("a tiger walks", seed=5, guidance=3), 3)
    assert not any(torch.equal(a, b) for a, b in zip(further, own, strict=True))
    deaf = [frames(studio.take(prompt, seed=5, guidance=0), 1) for prompt in ("a tiger walks", "a car")]
    assert same(*deaf)


def test_rewind_and_the_same_cues_again_are_the_never_rewound_take(studio: Studio) -> None:
    whole = frames(directed(studio), 12)
    take = directed(studio)
    begun = frames(take, 5)
    take.rewind(to=1)
    take.cue("night", at=4, transition="flush")
    again = frames(take, 10)
    # the cue at chunk 2 was after the head and is gone: say it again
    assert not torch.equal(again[0], whole[2])
    take.rewind(to=1)
    take.cue("snow falls", at=2)
    take.cue("night", at=4, transition="flush")
    take.cue("a car", at=6, transition="cut")
    take.cue("fog", at=7, fade=3)
    take.cue(seed=9, steps=1, at=8)
    take.cue(guidance=2.5, at=9)
    assert same(begun[:2] + frames(take, 10), whole)


def test_a_branch_leaves_its_parent_as_it_was(studio: Studio) -> None:
    whole = frames(directed(studio), 10)
    parent = directed(studio)
    first = frames(parent, 3)
    branch = parent.retake(at=2, prompt="the sun rises", seed=1)
    other = frames(branch, 4)
    assert same(first + frames(parent, 7), whole)
    assert not torch.equal(other[0], whole[2])
    assert branch.head is not None
    assert branch.head.parent is not None


def test_branches_share_the_memory_of_their_past(studio: Studio) -> None:
    parent = studio.take("a tiger walks")
    frames(parent, 20)
    before = studio.engine.snapshots.num_bytes(torch.device("cpu"))
    branch = parent.retake(at=19, prompt="a car")
    frames(branch, 1)
    assert studio.engine.snapshots.num_bytes(torch.device("cpu")) - before < before / 10
    del branch
    gc.collect()
    assert studio.engine.snapshots.num_bytes(torch.device("cpu")) == before


def test_memory_that_was_dropped_is_made_again_bit_for_bit(folder: Path) -> None:
    with longtake.open(str(folder)) as rich:
        whole = frames(directed(rich), 14)
    with Studio(rich.model, snapshot_mib=0) as poor:
        take = directed(poor)
        frames(take, 12)
        assert len(poor.engine.snapshots) == 1
        rewound = take.rewind(to=8)
        assert rewound.to_rebuild == 9
        take.cue(seed=9, steps=1, at=9)  # in force since 8
        take.cue(guidance=2.5, at=9)
        assert same(frames(take, 5), whole[9:])


def test_the_memory_budget_is_kept_and_old_memories_thin_out(folder: Path) -> None:
    with longtake.open(str(folder)) as studio:
        studio.engine.snapshots.host_bytes = 600_000
        take = studio.take("a tiger walks")
        for _ in take.stream(chunks=40):
            assert studio.engine.snapshots.num_bytes(torch.device("cpu")) <= 600_000
        assert take.head is not None
        assert take.head in studio.engine.snapshots
        assert 2 < len(studio.engine.snapshots) < 40
        rewound = [take.retake(at=k + 1) for k in range(39)]
        gaps = [len(studio.engine.snapshots.find(r.head).missing) for r in rewound]
        assert gaps[-3:] == [0, 0, 0]
        for back, gap in enumerate(reversed(gaps), 1):  # a way back is short in proportion to how far it goes
            assert gap <= back / 2, gaps


def test_memories_that_move_to_the_host_still_share(studio: Studio) -> None:
    take = studio.take("a tiger walks")
    for _ in take.stream(chunks=4):
        pass
    assert take.head is not None
    memories = [studio.engine.snapshots.find(node).memory for node in path_to(take.head)]
    copies = HostCopies()
    moved = [memory.moved(copies) for memory in memories]
    here = {key: tensor for memory in memories for key, tensor in memory.tensors().items()}
    there = {key: tensor for memory in moved for key, tensor in memory.tensors().items()}
    assert len(there) == len(here) > 8
    assert not here.keys() & there.keys()
    for memory, copy in zip(memories, moved, strict=True):
        for ours, theirs in zip(memory.tensors().values(), copy.tensors().values(), strict=True):
            assert torch.equal(ours, theirs)


def test_replay_gives_the_same_bits_and_survives_the_file(studio: Studio, folder: Path, tmp_path: Path) -> None:
    take = directed(studio)
    whole = frames(take, 12)
    take.script().save(tmp_path / "a.take.json")
    with longtake.open(str(folder)) as other:
        replayed = other.replay(tmp_path / "a.take.json")
        assert same([chunk.frames for chunk in replayed.stream()], whole)
        assert replayed.script() == take.script()


def test_a_branch_replays_as_a_take_of_its_own(studio: Studio) -> None:
    parent = directed(studio)
    begun = frames(parent, 5)
    branch = parent.retake(at=3, prompt="a red car", transition="cut")
    rest = frames(branch, 4)
    replayed = studio.replay(branch.script())
    assert same([c.frames for c in replayed.stream()], begun[:3] + rest)


def test_saved_frames_are_the_frames_that_were_shown(studio: Studio, tmp_path: Path) -> None:
    take = directed(studio)
    streamed = torch.cat(frames(take, 9))
    assert torch.equal(torch.cat(list(take.frames())), streamed)
    path = take.save(tmp_path / "out.mp4")
    assert read_video(path).shape == streamed.shape


def test_chunks_say_where_they_are_and_receipts_when(studio: Studio) -> None:
    take = studio.take("a tiger walks")
    chunks = list(take.stream(chunks=2))
    receipt = take.cue("night falls")
    assert receipt.accepted_at.chunk == 2
    assert receipt.due_at.chunk == 2
    assert receipt.applied_at is None
    chunks += take.stream(chunks=2)
    seen = [(chunk.index, chunk.start_s, chunk.prompt, chunk.cue is not None) for chunk in chunks]
    assert receipt.applied_at == receipt.due_at
    assert seen == [
        (0, 0.0, "a tiger walks", False),
        (1, 9 / 16, "a tiger walks", False),
        (2, 21 / 16, "a tiger walks, night falls", True),
        (3, 33 / 16, "a tiger walks, night falls", False),
    ]
    assert take.duration_s == 45 / 16
    take.rewind(to=1)
    assert receipt.applied_at is None
    with pytest.raises(InputError, match="not waiting"):
        receipt.cancel()


@pytest.mark.parametrize(("call", "due"), [(1, 2), (2, 2), (3, 3)])
def test_a_cue_from_another_thread_overtakes_a_chunk_until_it_is_denoised(
    studio: Studio, call: int, due: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps: the sampler asks before each and after the last. The third answer settles the chunk."""
    take = studio.take("a tiger walks")
    begun = frames(take, 2)
    places: list[int] = []
    asked = 0
    go_on = take.controller.should_continue

    def cue_meanwhile(done: bool) -> bool:
        nonlocal asked
        asked += 1
        answer = go_on(done) if call == 3 else None
        if asked == call:
            thread = threading.Thread(target=lambda: places.append(take.cue("night falls").due_at.chunk))
            thread.start()
            thread.join()
        return go_on(done) if answer is None else answer

    monkeypatch.setattr(take.controller, "should_continue", cue_meanwhile)
    chunks = list(take.stream(chunks=2))
    assert places == [due]
    assert [chunk.prompt.endswith("night falls") for chunk in chunks] == [due == 2, True]
    beforehand = studio.take("a tiger walks")
    beforehand.cue("night falls", at=due)
    assert same(begun + [c.frames for c in chunks], frames(beforehand, 4))


def test_a_chunk_is_overtaken_only_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    take = studio.take("a tiger walks")
    go_on, due = take.controller.should_continue, []

    def cue_always(done: bool) -> bool:
        due.append(take.cue(seed=len(due)).due_at.chunk)
        return go_on(done)

    monkeypatch.setattr(take.controller, "should_continue", cue_always)
    assert [chunk.index for chunk in take.stream(chunks=1)] == [0]
    assert due == [0, 1, 1, 1]


def test_a_stream_ends_at_its_seconds_and_can_be_gone_on_with(studio: Studio) -> None:
    take = studio.take("a tiger walks")
    assert sum(len(c.frames) for c in take.stream(seconds=1.0)) == 21
    assert sum(len(c.frames) for c in take.stream(seconds=1.5)) == 24
    stream = take.stream()
    next(stream)
    with pytest.raises(InputError, match="being streamed already"):
        next(take.stream())
    stream.close()  # type: ignore[attr-defined]
    assert len(frames(take, 1)) == 1


def test_a_chunk_that_cannot_be_kept_leaves_the_take_usable(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    take = directed(studio)
    begun = frames(take, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("longtake.studio.spool.np.save", full)
        with pytest.raises(MediaError, match="no space left"):
            frames(take, 1)
    assert same(begun + frames(take, 8), frames(directed(studio), 10))


def test_long_changes_drop_the_oldest_ones(studio: Studio) -> None:
    take = studio.take("a tiger walks")
    for change in ("snow falls", "the night comes", "a red car drives by", "the sun rises"):
        take.cue(change)
    frames(take, 1)
    assert take.head is not None
    prompt = take.head.in_force.prompt
    assert prompt.startswith("a tiger walks, ")
    assert prompt.endswith("the sun rises")
    assert "snow" not in prompt
    with pytest.raises(InputError, match="tokens"):
        take.cue(prompt=LONG)
    with pytest.raises(InputError, match="tokens"):
        take.cue(LONG)


def test_changes_are_dropped_before_a_script_could_not_hold_the_prompt(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio.model.text_encoder, "num_tokens", lambda _: 1)  # of a model that reads pages
    take = studio.take("a tiger walks")
    for letter in "abc":
        take.cue(letter * 400)
    frames(take, 1)
    assert len(take.script().cues[-1].prompt or "") == len("a tiger walks") + 2 * (2 + 400)


def test_an_image_opens_a_take_and_a_clip_is_gone_on_with(studio: Studio, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (30, 32, 48, 3), generator=rng, dtype=torch.uint8)
    animated = studio.animate(clip[:1], "it moves", seed=2)
    chunks = list(animated.stream(chunks=3))
    assert [len(c.frames) for c in chunks] == [1, 12, 12]
    still = clip[:1].expand(9, -1, -1, -1)
    plan = ChunkPlan(idx=0, wording=(("it moves", 1.0),), given=InitFrames(chunks=1, frames=9, pictures=still))
    (shown,) = studio.engine.sampler.step([ChunkRequest(plan=plan)])
    assert shown is not None
    assert torch.equal(chunks[0].frames, shown.pictures[:1])
    extended = studio.extend(clip, "it goes on")
    chunks = list(extended.stream(chunks=2))
    assert [len(c.frames) for c in chunks] == [21, 12]
    for take in (animated, extended):
        path = take.script().save(tmp_path / "given.take.json")
        assert same([c.frames for c in studio.replay(path).stream()], list(take.frames()))
        assert take.rewind(to=0 if take is animated else 1).to_rebuild == 0


def test_an_image_can_come_in_the_middle(studio: Studio) -> None:
    rng = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 32, 48, 3), generator=rng, dtype=torch.uint8)
    take = studio.take("a tiger walks")
    take.cue(prompt="a beach", image=picture, at=2)
    chunks = list(take.stream(chunks=4))
    assert [len(c.frames) for c in chunks] == [9, 12, 1, 12]
    assert same([c.frames for c in studio.replay(take.script()).stream()], [c.frames for c in chunks])
    assert same(list(take.frames()), [c.frames for c in chunks])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, t: s.take(""), "empty"),
        (lambda s, t: s.take("x" * 2000), "2,000 characters"),
        (lambda s, t: s.take("a", seed=2**70), "seed must be"),
        (lambda s, t: t.cue(), "changes something"),
        (lambda s, t: t.cue("a", prompt="b"), "not both"),
        (lambda s, t: t.cue("a", at=0), "has passed"),
        (lambda s, t: t.cue("a", at_s=0.1), "has passed"),
        (lambda s, t: t.cue("a", at=5, at_s=9.0), "not by both"),
        (lambda s, t: t.rewind(to=-2), "no chunk -2"),
        (lambda s, t: t.rewind(to=9), "no chunk 9"),
        (lambda s, t: t.retake(at=9), "no chunk 8"),
        (lambda s, t: t.stream(seconds=-1), "positive"),
        (lambda s, t: t.stream(chunks=0), "at least 1"),
        (lambda s, t: s.take("a").save("x.mp4"), "nothing has been made"),
        (lambda s, t: s.animate(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "a"), "8x8"),
        (lambda s, t: s.extend(torch.zeros(4, 32, 48, 3, dtype=torch.uint8), "a"), "9 are needed"),
        (lambda s, t: s.animate(Path("none.png"), "a"), "does not exist"),
    ],
)
def test_mistakes_are_told_and_the_take_goes_on(studio: Studio, call, message: str) -> None:
    take = studio.take("a tiger walks")
    begun = frames(take, 2)
    with pytest.raises((InputError, MediaError), match=message):
        call(studio, take)
    assert same(begun + frames(take, 1), frames(studio.take("a tiger walks"), 3))


def test_scripts_that_cannot_be_played_are_refused(studio: Studio, tmp_path: Path) -> None:
    good = directed(studio).script()
    path = tmp_path / "s.json"
    for text, message in (
        ("", "not a script"),
        ("[]", "not a script"),
        ('{"version": 2, "opening": {"prompt": "a"}}', "version"),
        ('{"version": 1, "opening": {"prompt": "a", "sede": 1}}', "sede"),
        ('{"version": 1, "opening": {"prompt": ""}}', "prompt"),
        ('{"version": 1, "model": "other", "opening": {"prompt": "a"}}', "another model"),
        ('{"version": 1, "model": "test", "weights": "x", "opening": {"prompt": "a"}}', "another weights"),
        ('{"version": 1, "opening": {"prompt": "a"}, "cues": [{"chunk": 1}]}', "changes something"),
        ('{"version": 1, "opening": {"prompt": "a"}, "cues": [{"chunk": 1, "at_s": 2, "seed": 1}]}', "not by both"),
        ('{"version": 1, "opening": {"prompt": "a"}, "cues": [{"seed": 1, "fade": 2}]}', "from one prompt"),
        ('{"version": 1, "opening": {"prompt": "a\\u001b[2J"}}', "control character"),
        ('{"version": 1, "opening": {"prompt": "a", "given": {"png": ["bm8="], "chunks": 1, "frames": 1}}}', "damaged"),
        (good.model_dump_json().replace('"size":"48x32"', '"size":"64x64"'), "another size"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            studio.replay(path)
    with pytest.raises(InputError, match="cannot read"):
        studio.replay(tmp_path / "none.json")


def test_a_file_is_restyled_frame_for_frame(studio: Studio, tmp_path: Path) -> None:
    path = studio.take("a tiger walks", seed=1)
    frames(path, 3)
    path.save(tmp_path / "source.mp4")
    restyled = studio.restyle(tmp_path / "source.mp4", "a red car", strength=0.7)
    restyled.cue("snow", at=1)
    chunks = list(restyled.stream())
    assert [len(c.frames) for c in chunks] == [9, 12, 12]
    again = studio.restyle(tmp_path / "source.mp4", "a red car", strength=0.7)
    again.cue("snow", at=1)
    assert same([c.frames for c in again.stream()], [c.frames for c in chunks])
    assert same(list(restyled.frames()), [c.frames for c in chunks])  # type: ignore[arg-type]
    for refused in (lambda: restyled.rewind(to=0), lambda: restyled.retake(at=1), restyled.script):
        with pytest.raises(InputError, match="follows its source"):
            refused()


def test_a_source_that_ends_within_a_chunk_ends_the_take_there(studio: Studio) -> None:
    rng = torch.Generator().manual_seed(0)
    source = torch.randint(0, 256, (25, 32, 48, 3), generator=rng, dtype=torch.uint8)
    one_by_one = studio.restyle(iter(source), "a red car")
    assert [len(c.frames) for c in one_by_one.stream()] == [9, 12, 4]
    assert one_by_one.head is not None
    assert one_by_one.duration_s == 25 / 16
    in_pieces = studio.restyle(iter(source.split(7)), "a red car")
    assert torch.equal(torch.cat([c.frames for c in in_pieces.stream()]), torch.cat(list(one_by_one.frames())))  # type: ignore[arg-type]


def test_a_source_is_pulled_no_further_than_the_chunk_that_is_made(studio: Studio) -> None:
    pulled = []

    def camera() -> Iterator[Pictures]:
        while True:
            pulled.append(1)
            yield torch.zeros(32, 48, 3, dtype=torch.uint8)

    stream = studio.restyle(camera(), "a red car").stream()
    next(stream)
    assert len(pulled) == 9
    next(stream)
    assert len(pulled) == 21


def test_a_camera_that_is_too_fast_loses_its_oldest_frames(studio: Studio) -> None:
    camera = LiveSource(studio.size, capacity=24)
    for level in range(60):
        camera.push(torch.full((32, 48, 3), level, dtype=torch.uint8))
    assert camera.num_dropped == 36
    first = camera.take(9)
    assert first is not None
    assert first[:, 0, 0, 0].tolist() == list(range(36, 45))
    camera.close()
    assert len(list(studio.restyle(camera, "a red car").stream())) == 2
    assert camera.take(1) is None
    with pytest.raises(InputError, match="8x8"):
        camera.push(torch.zeros(8, 8, 3, dtype=torch.uint8))


def test_a_buffer_that_is_used_again_does_not_change_what_waits(studio: Studio) -> None:
    buffer = np.zeros((32, 48, 3), np.uint8)
    camera = LiveSource(studio.size)

    def levels() -> Iterator[np.ndarray]:
        for level in range(9):
            buffer[:] = level
            yield buffer

    for picture in levels():
        camera.push(torch.as_tensor(picture))
    pulled = IteratorSource(map(torch.as_tensor, levels()), studio.size)
    for source in (camera, pulled):
        taken = source.take(9)
        assert taken is not None
        assert taken[:, 0, 0, 0].tolist() == list(range(9))


def test_a_source_with_wrong_pictures_loses_no_cues(studio: Studio) -> None:
    restyled = studio.restyle(torch.zeros(9, 32, 48, 3, dtype=torch.uint8), "a red car")
    assert [len(c.frames) for c in restyled.stream()] == [9]
    bad = studio.restyle(iter([torch.zeros(9, 8, 8, 3, dtype=torch.uint8)]), "a red car")
    bad.cue("snow")
    with pytest.raises(InputError, match="8x8"):
        next(bad.stream())
    assert len(bad.state.pending) == 1
    with pytest.raises(InputError, match="no images"):
        bad.cue(prompt="b", image=torch.zeros(1, 32, 48, 3, dtype=torch.uint8))


def test_full_strength_is_text_to_video(studio: Studio) -> None:
    source = torch.zeros(21, 32, 48, 3, dtype=torch.uint8)
    restyled = studio.restyle(iter([source]), "a tiger walks", strength=1.0, seed=4)
    assert same([c.frames for c in restyled.stream()], frames(studio.take("a tiger walks", seed=4), 2))
    assert studio.restyle(iter([source]), "a tiger walks").state.strength == 0.6
    for strength in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="strength"):
            studio.restyle(iter([source]), "a", strength=strength)


def test_a_model_with_a_source_adapter_follows_a_source_at_full_strength(studio: Studio, tmp_path: Path) -> None:
    bright = torch.full((21, 32, 48, 3), 200, dtype=torch.uint8)
    with longtake.open(str(write_model(tmp_path / "adapted", source_adapter=True))) as adapted:
        restyled = adapted.restyle(iter([bright]), "a tiger walks", seed=4)
        assert restyled.state.strength == 1.0
        followed = [chunk.frames for chunk in restyled.stream()]
        dark = [c.frames for c in adapted.restyle(iter([bright // 4]), "a tiger walks", seed=4).stream()]
        assert not any(torch.equal(a, b) for a, b in zip(followed, dark, strict=True))
        assert same([c.frames for c in adapted.restyle(iter([bright]), "a tiger walks", seed=4).stream()], followed)
        # What follows nothing is the student's own.
        assert same(frames(adapted.take("a tiger walks", seed=4), 2), frames(studio.take("a tiger walks", seed=4), 2))


def test_a_restyled_takes_memory_is_made_again_by_the_source_adapter(tmp_path: Path) -> None:
    source = torch.randint(256, (33, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = str(write_model(tmp_path / "adapted", source_adapter=True))
    shown = []
    for snapshot_mib in (512, 0):  # with nothing kept, every chunk's memory is made of latents again
        with Studio(open_model(model), snapshot_mib=snapshot_mib) as studio:
            shown.append([c.frames for c in studio.restyle(iter([source]), "a tiger walks").stream()])
    assert same(*shown)


def test_a_negative_prompt_steers_guided_chunks_from_its_cue_on_and_travels_in_the_script(
    studio: Studio, tmp_path: Path
) -> None:
    plain, other = (studio.take("a tiger walks", guidance=3) for _ in range(2))
    other.cue(negative_prompt="a red car", at=1)
    before, after = frames(plain, 3), frames(other, 3)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]
    path = other.script().save(tmp_path / "negative.take.json")
    assert same([c.frames for c in studio.replay(path).stream()], after)
    from_the_start = studio.take("a tiger walks", guidance=3, negative_prompt="a red car")
    assert not torch.equal(frames(from_the_start, 1)[0], before[0])
    alone = [frames(studio.take("a tiger", negative_prompt=negative), 1) for negative in (None, "a red car")]
    assert same(*alone)  # without guidance it changes nothing


def test_a_script_has_the_threads_of_each_chunk_and_is_replayed_with_them(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def watched(threads: int | None) -> None:
        assert threads is not None
        computed.append(threads)

    load = iter([2, 2, 1, 1, 2])
    monkeypatch.setattr(studio.engine, "threads", lambda: next(load, 7))
    monkeypatch.setattr("longtake.sample.sampler.compute_with", watched)
    monkeypatch.setattr("longtake.studio.engine.compute_with", watched)
    take = studio.take("a tiger walks")
    frames(take, 5)
    assert computed == [2, 2, 1, 1, 2]
    assert take.script().threads == [(2, 2), (1, 2), (2, 1)]
    list(take.frames())
    assert computed[5:] == [2, 2, 1, 1, 2]
    replayed = studio.replay(take.script())
    assert len(frames(replayed, 7)) == 7
    assert computed[10:] == [2, 2, 1, 1, 2, 7, 7]  # what comes after the script is made as the machine allows
