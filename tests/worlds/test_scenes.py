"""What the sampler promises: determinism, honest splits, events on chunk boundaries."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from longtake.core.errors import ConfigError, InputError
from longtake.worlds.assets import subject_named
from longtake.worlds.motion import pose_at
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import (
    Scene,
    WorldConfig,
    chunk_frames,
    distance,
    held_out_pairs,
    is_held_out,
    is_lateral,
    possible_events,
    support_for,
)
from longtake.worlds.splits import feasible_scenes

SMALL = WorldConfig.small()
FULL = WorldConfig.full()


def test_the_same_seed_gives_the_same_scene() -> None:
    assert sample_scene(SMALL, 3) == sample_scene(WorldConfig.small(), 3)
    assert sample_scene(SMALL, 3) != sample_scene(SMALL, 4)


@pytest.mark.parametrize("make", [WorldConfig.small, WorldConfig.full])
def test_training_never_shows_what_is_held_out(make: Callable[[], WorldConfig]) -> None:
    config = make()
    assert held_out_pairs(config).subject_places
    assert held_out_pairs(config).subject_motions
    assert not any(is_held_out(config, scene) for scene in _sampled(config))


@pytest.mark.parametrize("make", [WorldConfig.small, WorldConfig.full])
def test_the_held_out_split_shows_nothing_else(make: Callable[[], WorldConfig]) -> None:
    config = make()
    assert all(is_held_out(config, sample_scene(config, s, "held_out")) for s in range(150))


def test_every_place_subject_and_motion_of_the_small_world_occurs_in_training() -> None:
    scenes = _sampled(SMALL)
    assert {s.place for s in scenes} == set(SMALL.places)
    assert {a.subject for s in scenes for a in s.actors} == set(SMALL.subjects)
    assert {a.motion for s in scenes for a in s.actors} == set(SMALL.motions)


def test_every_place_subject_and_motion_of_the_full_world_can_occur_in_training() -> None:
    triples = _triples(FULL)
    for axis, wanted in enumerate((FULL.subjects, FULL.motions, FULL.places)):
        assert {t[axis] for t in triples} == set(wanted)


@pytest.mark.parametrize("make", [WorldConfig.small, WorldConfig.full])
def test_no_held_out_pair_can_be_drawn_for_training(make: Callable[[], WorldConfig]) -> None:
    config = make()
    pairs = held_out_pairs(config)
    for subject, motion, place in _triples(config):
        assert (subject, place) not in pairs.subject_places
        assert (subject, motion) not in pairs.subject_motions


def test_a_tenth_of_the_pairs_is_held_out() -> None:
    pairs = held_out_pairs(FULL)
    feasible = {
        (s, p)
        for split in ("train", "held_out")
        for s, motions in feasible_scenes(FULL, split).items()
        for by_place in motions.values()
        for p in by_place
        if s in FULL.subjects
    }
    assert abs(len(pairs.subject_places) / len(feasible) - 0.1) < 0.01


def test_actors_only_do_what_they_can_where_they_are() -> None:
    for seed in range(200):
        scene = sample_scene(FULL, seed)
        for actor in scene.actors:
            assert actor.support == support_for(subject_named(actor.subject), actor.motion, scene.view)


def test_events_start_at_the_first_frame_of_a_chunk() -> None:
    with_events = [s for s in _sampled(SMALL) if s.events]
    assert 0.4 < len(with_events) / len(_sampled(SMALL)) < 0.6
    for scene in with_events:
        (event,) = scene.events
        assert event.chunk_idx in (1, 2)
        assert event.frame == chunk_frames(event.chunk_idx, 3).start == 9 + 12 * (event.chunk_idx - 1)


def test_every_kind_of_event_is_sampled() -> None:
    kinds = {e.kind for scene in _sampled(SMALL) for e in scene.events}
    assert len(kinds) == 8


def test_a_scene_survives_json() -> None:
    for seed in range(20):
        scene = sample_scene(FULL, seed)
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_the_state_follows_the_events() -> None:
    scene = _walker()
    way = scene.actors[0].direction
    changed = scene.with_events(("turns_around", 1), ("snow_starts", 2), ("stops", 3))
    assert changed.state_at(0).direction == way
    assert changed.state_at(1).direction not in (way, None)
    assert (changed.state_at(1).weather, changed.state_at(2).weather) == ("clear", "snow")
    assert changed.state_at(2).moving
    assert not changed.state_at(3).moving


def test_an_impossible_event_is_refused_with_the_possible_ones() -> None:
    scene = _walker()
    assert "night_falls" in possible_events(scene, 1)
    with pytest.raises(InputError, match=r"possible: .*turns_around"):
        scene.with_events(("starts_moving", 1))


def test_an_actor_that_turns_comes_back_the_way_it_went() -> None:
    scene = _walker().with_events(("turns_around", 1))
    start, turn = distance(scene, 0, 0), 8 + 4  # the ramp of 8 frames begins after frame 8
    assert distance(scene, 0, turn) > start
    assert distance(scene, 0, 2 * turn) == pytest.approx(start, abs=1e-6)


def test_movers_stay_in_the_picture_during_a_clip() -> None:
    for seed in range(150):
        scene = sample_scene(SMALL, seed)
        for idx, actor in enumerate(scene.actors):
            if actor.speed and actor.motion not in ("rises", "falls"):
                sign = 1 if actor.direction == "right" else -1
                path = [actor.x + sign * actor.speed * distance(scene, idx, f) for f in range(45)]
                assert -0.02 < min(path) <= max(path) < 1.02


def test_a_world_that_keeps_nothing_for_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out_fraction"):
        WorldConfig(places=("green_park",), subjects=("tiger",), motions=("walks",), held_out_fraction=1.5)


def test_an_unknown_subject_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match='no subject is called "unicorn"'):
        replace(SMALL, subjects=("unicorn",))


def test_the_hash_names_the_configuration() -> None:
    assert SMALL.hash == WorldConfig.small().hash
    assert SMALL.hash != replace(SMALL, event_probability=0.4).hash


@lru_cache(maxsize=2)
def _sampled(config: WorldConfig) -> tuple[Scene, ...]:
    return tuple(sample_scene(config, seed) for seed in range(700))


def _triples(config: WorldConfig) -> list[tuple[str, str, str]]:
    """Every (subject, motion, place) of the training split."""
    found = feasible_scenes(config, "train")
    return [(s, m, p) for s, motions in found.items() for m, places in motions.items() for p in places]


def _walker() -> Scene:
    """A clear day, one walker that moves, nothing else."""
    config = replace(
        SMALL,
        places=("green_park",),
        subjects=("tiger", "elephant"),
        motions=("walks",),
        event_probability=0.0,
        weather_probability=0.0,
        time_probability=0.0,
        camera_probability=0.0,
        second_subject_probability=0.0,
        held_out_fraction=0.0,
    )
    return sample_scene(config, 0)


def test_places_are_seen_from_the_views_that_are_named() -> None:
    world = replace(FULL, views=(("green_park", 2), ("city_street", 0), ("city_street", 3)), held_out_views=())
    seen: dict[str, set[int]] = {}
    for seed in range(600):
        scene = sample_scene(world, seed)
        seen.setdefault(scene.place, set()).add(scene.view_idx)
    assert seen["green_park"] == {2}
    assert seen["city_street"] == {0, 3}
    assert len(seen["palace_square"]) > 1  # of which nothing was said


def test_a_camera_without_range_always_stands_the_same() -> None:
    stands = {(s.place, s.camera.azimuth, s.camera.pitch) for s in (sample_scene(SMALL, seed) for seed in range(80))}
    assert len(stands) == len(SMALL.places)
    free = replace(SMALL, camera_range=1.0)
    assert len({(s.place, s.camera.azimuth) for s in (sample_scene(free, seed) for seed in range(80))}) > 20
    with pytest.raises(ConfigError, match="camera_range"):
        replace(SMALL, camera_range=1.5)


def test_with_one_nearness_a_subject_has_one_size_and_one_row_per_place() -> None:
    """Nearer subjects are larger and stand lower; without nearness sizes vary."""
    shown: dict[float | None, dict[tuple[str, str, str], set[tuple[float, float]]]] = {}
    for nearness in (None, 0.0, 1.0):
        config = replace(SMALL, nearness=nearness, camera_range=0.0, second_subject_probability=0.0)
        kinds = shown.setdefault(nearness, {})
        for seed in range(600):
            scene = sample_scene(config, seed)
            actor = scene.actors[0]
            if actor.support == "ground":
                kind = (scene.place, actor.subject, scene.camera.kind)
                kinds.setdefault(kind, set()).add((actor.height, actor.y))
    assert max(len(found) for found in shown[None].values()) > 1
    far, near = shown[0.0], shown[1.0]
    assert {len(found) for found in (*far.values(), *near.values())} == {1}
    for kind in far.keys() & near.keys():
        (small, high), (large, low) = *far[kind], *near[kind]
        assert small < large
        assert high <= low


def test_on_a_grid_subjects_begin_at_multiples_of_it_and_move_by_whole_steps() -> None:
    """Positions are compared at the last frames of latent frames, for subjects whose gait does not move them."""
    config = replace(SMALL, grid=16, event_probability=0.0, camera_probability=0.0, camera_range=0.0)
    still = torch.zeros(12)
    moved = set()
    for seed in range(200):
        scene = sample_scene(config, seed)
        for idx in range(len(scene.actors)):
            pose = pose_at(scene, idx, range(0, 45, 4), still, still + 1)
            for pixels, step in ((pose.x, 16), (pose.ground_y, 8)):
                assert float(pixels[0]) / 32 == pytest.approx(round(float(pixels[0]) / 32), abs=0.02)
                steps = pixels.diff() / step
                assert torch.allclose(steps, steps.round(), atol=0.02)
                moved |= {(step, round(float(each))) for each in steps if abs(float(each)) < 5}
    assert {(16, -1), (16, 0), (16, 1), (8, -1), (8, 0)} <= moved


def test_events_leave_subjects_on_the_grid_when_their_ramps_are_over() -> None:
    config = replace(SMALL, grid=16, event_probability=1.0, camera_probability=0.0, camera_range=0.0)
    still, seen = torch.zeros(12), set()
    for seed in range(300):
        scene = sample_scene(config, seed)
        if not scene.events:  # a subject for which nothing can happen
            continue
        (event,) = scene.events
        pose = pose_at(scene, 0, range(0, 45, 4), still, still + 1)
        for latent_frame, x in enumerate(pose.x.tolist()):
            if event.kind in ("turns_around", "stops", "starts_moving") and not 0 < 4 * latent_frame - event.frame < 7:
                seen.add(event.kind)
                assert abs(x / 16 - round(x / 16)) < 0.02, (event, latent_frame, x)
    assert seen == {"turns_around", "stops", "starts_moving"}


def test_the_position_of_a_subject_on_a_grid_gives_its_pose() -> None:
    """Subjects of one motion and direction that stand in one column of a token of 32 pixels look the same there.

    The fewer poses there are at the ends of latent frames, the sooner a model knows them all.
    """
    config = replace(SMALL, grid=16, event_probability=0.0, camera_probability=0.0, camera_range=0.0, nearness=0.5)
    still = torch.zeros(21)
    poses: dict[tuple[str, str, str | None, int], set[tuple[float, ...]]] = {}
    for seed in range(600):
        scene = sample_scene(config, seed)
        actor = scene.actors[0]
        if actor.motion in ("walks", "hops", "drives") and actor.support == "ground":
            pose = pose_at(scene, 0, range(0, 81, 4), still, still + 1)
            for i in range(21):
                column = round(float(pose.x[i])) % 32
                values = (pose.lift[i], pose.angle[i], pose.half_w[i], pose.half_h[i])
                shown = tuple(round(float(value), 1) + 0.0 for value in values)
                poses.setdefault((actor.subject, actor.motion, actor.direction, column), set()).add(shown)
    inside = {key: found for key, found in poses.items() if key[3] % 16 == 0}
    assert len(inside) > 12
    assert {key[3] for key in inside} == {0, 16}
    assert all(len(found) <= 2 for found in inside.values()), inside


def test_motion_and_direction_tell_where_a_subject_on_a_grid_begins() -> None:
    config = replace(SMALL, grid=16, camera_probability=0.0, camera_range=0.0)
    starts: dict[str | None, set[float]] = {}
    for seed in range(300):
        actors = sample_scene(config, seed).actors
        first = actors[0]
        if is_lateral(first.motion, subject_named(first.subject)):
            starts.setdefault(first.direction, set()).add(first.x)
        elif len(actors) == 1:
            starts.setdefault("middle", set()).add(first.x)
        if len(actors) > 1:
            assert abs(first.x - actors[1].x) > 0.15  # not one before the other
    assert {side: len(found) for side, found in starts.items()} == {"left": 1, "right": 1, "middle": 1}
    assert max(starts["right"]) < 0.5 < min(starts["left"])


def test_on_a_grid_only_what_moves_to_the_left_faces_left() -> None:
    config = replace(SMALL, grid=16, event_probability=0.5, camera_probability=0.0, camera_range=0.0)
    scenes = [sample_scene(config, seed) for seed in range(300)]
    lefts = [(scene, a) for scene in scenes for a in scene.actors if a.direction == "left"]
    assert len(lefts) > 30
    assert all(is_lateral(a.motion, subject_named(a.subject)) and a.moving for _, a in lefts)


def test_nearness_is_a_fraction_and_a_grid_has_a_distance() -> None:
    with pytest.raises(ConfigError, match="nearness"):
        replace(SMALL, nearness=1.5)
    with pytest.raises(ConfigError, match="grid"):
        replace(SMALL, grid=0)
