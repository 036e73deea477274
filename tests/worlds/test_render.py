"""The renderer is pure, its subjects face the way they go, and events leave the past alone."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from longtake.core.errors import InputError
from longtake.worlds.assets import panorama
from longtake.worlds.render import Look, render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Camera, Scene, WorldConfig

SMALL = WorldConfig.small()
CALM = replace(
    SMALL,
    places=("green_park",),
    subjects=("tiger", "elephant", "rabbit"),
    motions=("walks",),
    event_probability=0.0,
    weather_probability=0.0,
    time_probability=0.0,
    camera_probability=0.0,
    second_subject_probability=0.0,
    held_out_fraction=0.0,
)


def _bystander(scene: Scene) -> Scene:
    return replace(scene, actors=(replace(scene.actors[0], x=-5.0, speed=0.0),))


def _footprint(scene: Scene, frame: int, look: Look = "full") -> torch.Tensor:
    """Where the actor is: the pixels that differ when it is far away."""
    frames = range(frame, frame + 1)
    far = replace(scene, actors=(replace(scene.actors[0], y=-5.0, support="air"),))
    with_actor = render([scene], look, frames=frames)[0, 0].int()
    return (with_actor - render([far], look, frames=frames)[0, 0].int()).abs().sum(-1) > 12


def test_frames_are_bytes_of_the_promised_shape() -> None:
    frames = render([sample_scene(SMALL, 0)])
    assert frames.shape == (1, 45, 96, 160, 3)
    assert frames.dtype == torch.uint8


def test_the_same_scene_gives_the_same_bytes() -> None:
    scene = sample_scene(SMALL, 1)
    assert torch.equal(render([scene]), render([scene]))


def test_a_batch_of_two_is_two_of_one() -> None:
    scenes = [sample_scene(SMALL, s) for s in (1, 2)]
    alone = torch.cat([render([s]) for s in scenes])
    assert torch.equal(render(scenes), alone)


@pytest.mark.parametrize("seed", range(8))
def test_a_part_rendered_alone_equals_the_whole(seed: int) -> None:
    """Up to one grey level: vectorised arithmetic may round a tail of another length otherwise."""
    scene = sample_scene(SMALL, seed)
    part = render([scene], frames=range(20, 33))[0].int()
    assert (render([scene])[0, 20:33].int() - part).abs().max() <= 1


@pytest.mark.parametrize("kind", ["night_falls", "sun_sets", "snow_starts", "rain_starts", "fog_rolls_in", "stops"])
def test_frames_before_an_event_are_as_without_it(kind: str) -> None:
    scene = sample_scene(CALM, 0)
    plain, eventful = render([scene])[0], render([scene.with_events((kind, 2))])[0]
    assert torch.equal(plain[:21], eventful[:21])
    changed = (plain[21:].int() - eventful[21:].int()).abs().float().mean((1, 2, 3))
    assert changed[-1] > 0.5
    if kind != "stops":
        assert changed[0] > 0.05


def test_an_actor_that_turns_is_unchanged_before_it() -> None:
    scene = sample_scene(CALM, 0)
    turned = render([scene.with_events(("turns_around", 1))])[0]
    assert torch.equal(render([scene])[0, :9], turned[:9])


@pytest.mark.parametrize("subject", ["tiger", "elephant"])
def test_a_mover_is_mirrored_to_face_the_way_it_goes(subject: str) -> None:
    still = replace(sample_scene(CALM, 0).actors[0], subject=subject, motion="stands still", speed=0.0, x=0.5)
    scene = replace(sample_scene(CALM, 0), actors=(still,))
    left, right = (
        _footprint(replace(scene, actors=(replace(still, direction=d),)), 0, "plain").float() for d in ("left", "right")
    )
    mirrored = right.flip(-1)
    overlap = (left * mirrored).sum() / torch.maximum(left, mirrored).sum()
    same = (left * right).sum() / torch.maximum(left, right).sum()
    assert overlap > 0.9
    assert same < overlap - 0.03


@pytest.mark.parametrize("direction", ["left", "right"])
def test_a_walker_goes_the_way_it_is_said_to(direction: str) -> None:
    scene = sample_scene(CALM, 0)
    x = 0.3 if direction == "right" else 0.7
    scene = replace(scene, actors=(replace(scene.actors[0], direction=direction, x=x),))
    columns = torch.arange(160).float()
    first, last = ((m.sum(0) * columns).sum() / m.sum() for m in (_footprint(scene, f) for f in (0, 40)))
    assert (last > first) == (direction == "right")
    assert abs(last - first) > 25


def test_both_looks_have_the_same_silhouettes() -> None:
    for seed in range(4):
        scene = sample_scene(CALM, seed)
        full, plain = (_footprint(scene, 12, look).float() for look in get_args(Look))
        overlap = (full * plain).sum() / torch.maximum(full, plain).sum()
        assert overlap > 0.75


def test_a_long_take_comes_back_in_from_the_other_side() -> None:
    scene = sample_scene(CALM, 0).lasting(481)
    seen = [bool(_footprint(scene, f).any()) for f in range(0, 481, 8)]
    assert sum(seen) / len(seen) > 0.7


def test_a_pan_moves_the_place_and_a_push_enlarges_it() -> None:
    scene = sample_scene(CALM, 0)
    azimuth = scene.camera.azimuth
    for kind in ("pan_right", "push_in"):
        camera = Camera(kind=kind, azimuth=azimuth, pitch=scene.camera.pitch, rate=0.15, travel=0.4)
        moved = render([replace(scene, camera=camera)])[0]
        still = render([scene])[0]
        first = (moved[0].int() - still[0].int()).abs().float().mean()
        assert first < 0.3  # the cut-out may be resized otherwise
        assert (moved[-1].int() - still[-1].int()).abs().float().mean() > 0.5


def test_scenes_of_different_lengths_do_not_share_a_batch() -> None:
    scene = sample_scene(CALM, 0)
    with pytest.raises(InputError, match="share length"):
        render([scene, scene.lasting(9)])


TINY = WorldConfig.tiny()


@pytest.mark.parametrize("place", TINY.places)
def test_the_whole_view_of_a_sharp_place_lies_inside_its_picture(place: str) -> None:
    """No row and no column of the view is the border, repeated."""
    world = replace(TINY, places=(place,), held_out_fraction=0.0)
    empty = replace(sample_scene(world, 0), actors=(), time="day", weather="clear", events=())
    picture = render([empty], frames=range(1))[0, 0].int()
    for step in (picture.diff(dim=0).abs().sum((1, 2)), picture.diff(dim=1).abs().sum((0, 2))):
        assert step.min() > 0


def test_a_window_of_a_panorama_lies_where_its_angles_say() -> None:
    """A point at an azimuth and an elevation is on the column and the row that the conventions give."""
    scene = replace(sample_scene(replace(TINY, places=("hilltop_terrace",)), 0), actors=(), events=(), weather="clear")
    picture = render([replace(scene, time="day")], frames=range(1))[0, 0].float()
    stored = panorama("hilltop_terrace")
    focal = scene.width_px / 2 / math.tan(math.radians(scene.view.field / 2))
    pitch = math.radians(scene.camera.pitch)
    for x, y in ((40, 60), (160, 96), (300, 150)):
        right, up = x + 0.5 - scene.width_px / 2, scene.height_px / 2 - y - 0.5
        up, ahead = up * math.cos(pitch) + focal * math.sin(pitch), focal * math.cos(pitch) - up * math.sin(pitch)
        azimuth = math.degrees(math.atan2(right, ahead))
        elevation = math.degrees(math.atan2(up, math.hypot(right, ahead)))
        column, row = (azimuth + 60) * 2048 / 360, (40 - elevation) * 2048 / 360
        there = stored[:, int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2].flatten(1)
        shown = picture[y, x] / 255
        assert bool((shown >= there.amin(1) - 0.01).all() and (shown <= there.amax(1) + 0.01).all())


@pytest.mark.parametrize("seed", range(6))
def test_silhouettes_cover_what_subjects_cover(seed: int) -> None:
    scene = sample_scene(replace(TINY, second_subject_probability=0.5, size=SMALL.size), seed)
    frames = range(0, 20, 6)  # while a lateral subject is still in a picture of half the width
    cover = silhouettes([scene], frames=frames)[0].float() / 255
    with_them, without = (render([s], "plain", frames=frames)[0].float() for s in (scene, replace(scene, actors=())))
    changed = (with_them - without).amax(-1)
    assert bool((changed[cover == 0] <= 1).all())  # nothing but shadows
    assert ((with_them - without).abs().amax(-1)[cover > 0.9] > 5).float().mean() > 0.9
    assert cover.amax((1, 2)).min() > 0.9
