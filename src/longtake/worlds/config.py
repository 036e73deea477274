"""Configurations of worlds: their contents and the probabilities of what happens."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from longtake.core.errors import ConfigError
from longtake.core.shapes import PictureSize, Stride
from longtake.worlds.assets import place_named, places, subject_named, subjects

FORMAT = 8  # version to raise when the same (config, seed) gives another scene or another rendering


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    """Places, subjects and motions of a world, and the probabilities of what happens in it.

    Probabilities are in [0, 1]. `latent_frames` is the length of a clip, `chunk` the number of latent frames per
    chunk. `rows` gives the ranges of heights of small, medium and large subjects in a picture of 96 rows. A place that
    occurs in `views` is shown in those views only. `camera_range` is the fraction of a view's range of directions,
    around its middle, from which the camera's direction is drawn (0: fixed camera). `nearness` gives every subject one
    size and one row per place (0: farthest and smallest, 1: nearest and largest); with None sizes and rows are drawn.
    `grid` is a distance in pixels, for worlds of few poses: subjects move sideways by multiples of it in every latent
    frame (rising and falling ones: of its half; ramps of events: any distance), their rows and the columns at which
    they begin are multiples of twice the grid, which motion and direction determine, and a subject's position on its
    path gives the phase of its gait; subjects face right unless they move to the left. With None, all of these are
    drawn freely.
    """

    places: tuple[str, ...]
    subjects: tuple[str, ...]
    motions: tuple[str, ...]
    size: PictureSize = field(default_factory=lambda: PictureSize(height=96, width=160))
    fps: int = 16
    latent_frames: int = 12
    chunk: int = 3
    rows: tuple[tuple[float, float], tuple[float, float], tuple[float, float]] = (
        (22.0, 30.0),
        (30.0, 40.0),
        (40.0, 54.0),
    )
    views: tuple[tuple[str, int], ...] = ()
    camera_range: float = 1.0
    camera_probability: float = 0.3
    weather_probability: float = 0.25
    time_probability: float = 0.25
    event_probability: float = 0.5
    second_subject_probability: float = 0.08
    grid: int | None = None
    nearness: float | None = None
    last_event_chunk: int = 2
    held_out_fraction: float = 0.1
    held_out_subjects: tuple[str, ...] = ()
    held_out_views: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for place in self.places:
            place_named(place)
        for subject in (*self.subjects, *self.held_out_subjects):
            subject_named(subject)
        if not (self.places and self.subjects and self.motions):
            raise ConfigError("a world needs at least one place, one subject and one motion")
        if self.latent_frames < 1 or self.chunk < 1:
            raise ConfigError(f"latent_frames and chunk must be at least 1, got {self.latent_frames} and {self.chunk}")
        for name in (
            "camera_range",
            "camera_probability",
            "weather_probability",
            "time_probability",
            "event_probability",
            "second_subject_probability",
            "held_out_fraction",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.grid is not None and self.grid < 1:
            raise ConfigError(f"grid must be at least 1 pixel or None, got {self.grid}")
        if self.nearness is not None and not 0 <= self.nearness <= 1:
            raise ConfigError(f"nearness must be in [0, 1] or None, got {self.nearness}")

    @classmethod
    def small(cls) -> "WorldConfig":
        """World that a model can learn on a CPU: five places in one view each, eight clearly distinct subjects."""
        return cls(
            places=(
                "pine_forest",
                "green_park",
                "sea_and_clouds",
                "city_street",
                "desert_dawn",
            ),
            subjects=("tiger", "elephant", "penguin", "car", "sailboat", "airplane", "rocket", "balloon"),
            motions=(
                "walks",
                "hops",
                "drives",
                "sails",
                "flies",
                "rises",
                "bounces",
                "stands still",
            ),
            views=(
                ("pine_forest", 0),
                ("green_park", 2),
                ("sea_and_clouds", 0),
                ("city_street", 3),
                ("desert_dawn", 1),
            ),
            camera_range=0.0,
        )

    @classmethod
    def tiny(cls) -> "WorldConfig":
        """World of the default model: twelve places with a fixed camera, 24 subjects of four kinds, 320x192."""
        return cls(
            places=(
                "mountain_road",
                "hilltop_terrace",
                "swimming_pool",
                "sunset_promenade",
                "cathedral_square",
                "park_avenue_night",
                "night_river",
                "snowy_square",
                "canal_bridge",
                "old_hall",
                "ocean_sunset",
                "misty_hillside",
            ),
            subjects=(
                *("tiger", "elephant", "penguin", "zebra", "rabbit", "duck", "whale", "t_rex"),
                *("car", "sailboat", "airplane", "rocket", "tractor", "bus", "helicopter"),
                *("balloon", "teddy_bear", "soccer_ball", "robot"),
                *("red_apple", "hamburger", "cupcake", "mushroom", "sunflower"),
            ),
            motions=(
                *("walks", "hops", "drives", "sails", "flies", "floats", "rolls", "bounces", "rises", "falls"),
                "stands still",
            ),
            size=PictureSize(height=192, width=320),
            latent_frames=21,
            rows=((37.5, 44.0), (42.0, 50.0), (48.0, 58.0)),
            camera_range=0.0,
            camera_probability=0.0,
            weather_probability=0.15,
            time_probability=0.15,
            event_probability=0.45,
            second_subject_probability=0.1,
            nearness=0.5,
            grid=16,
        )

    @classmethod
    def full(cls) -> "WorldConfig":
        """World of all places, subjects and motions; ten subjects and two views are held out for tests."""
        held_out = (
            "zebra",
            "duck",
            "helicopter",
            "taxi",
            "canoe",
            "volleyball",
            "pear",
            "teddy_bear",
            "cactus",
            "crown",
        )
        return cls(
            places=tuple(sorted(places())),
            subjects=tuple(sorted(set(subjects()) - set(held_out))),
            motions=(
                "walks",
                "hops",
                "runs",
                "drives",
                "sails",
                "flies",
                "floats",
                "rolls",
                "bounces",
                "spins",
                "rises",
                "falls",
                "grows",
                "shrinks",
                "stands still",
            ),
            rows=((18.0, 28.0), (27.0, 40.0), (38.0, 56.0)),
            second_subject_probability=0.2,
            held_out_subjects=held_out,
            held_out_views=(("green_park", 1), ("warehouse", 2)),
        )

    @property
    def num_frames(self) -> int:
        """Number of frames of a clip."""
        return Stride().frames(self.latent_frames)

    @property
    def num_chunks(self) -> int:
        """Number of chunks of a clip; the last one may be shorter."""
        return -(-self.latent_frames // self.chunk)

    @property
    def hash(self) -> str:
        """Hash of the format and the configuration, which together decide the scene of a seed.

        Options that are None are left out, so that the worlds without them keep their scenes.
        """
        return _config_hash(self)


@lru_cache(maxsize=16)
def _config_hash(config: WorldConfig) -> str:
    options = {name: value for name, value in asdict(config).items() if value is not None}
    text = json.dumps({"format": FORMAT, **options}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
