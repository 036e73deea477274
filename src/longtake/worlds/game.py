"""Interactive scenes: one subject, steered frame by frame, rendered in the plain look.

The frames resemble those of a basic game engine; `longtake play` restyles them with a model.
"""

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from longtake.core.errors import ConfigError, InputError
from longtake.core.shapes import PictureSize
from longtake.worlds.config import WorldConfig
from longtake.worlds.render import Look, render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import LATERAL, Scene

Key = Literal["left", "right", "up", "down"]

SPEED = 0.25  # horizontal speed in picture widths per second
CLIMB = 0.35  # vertical speed of subjects in the air, in picture heights per second
LEAP_S = 0.6  # duration of a jump in seconds
LEAP = 0.25  # height of a jump in picture heights


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """Immutable state of a game; `step` returns the next one."""

    scene: Scene
    moved: int = 0  # frames spent moving, which drive the gait
    leap_s: float = 0.0  # remaining seconds of a jump

    @classmethod
    def new(cls, subject: str = "tiger", place: str = "green_park", size: PictureSize | None = None) -> "Game":
        """Create a game with a subject in the middle of a place.

        Raises:
            InputError: there is no such subject or place, or the subject cannot move about there.
        """
        try:
            world = replace(
                WorldConfig.small(),
                places=(place,),
                subjects=(subject,),
                motions=LATERAL,
                size=size or PictureSize(height=96, width=160),
                rows=((34.0, 36.0), (42.0, 44.0), (50.0, 52.0)),
                camera_probability=0.0,
                weather_probability=0.0,
                time_probability=0.0,
                event_probability=0.0,
                second_subject_probability=0.0,
                held_out_fraction=0.0,
            )
            scene = sample_scene(world, 0)
        except ConfigError as error:
            raise InputError(f"{subject} cannot move about in {place} ({error})") from error
        actor = replace(scene.actors[0], x=0.5, direction="right", speed=SPEED)
        return cls(scene=replace(scene, actors=(actor,)))

    def step(self, pressed: frozenset[Key]) -> "Game":
        """State one frame later, with the `pressed` keys held."""
        actor = self.scene.actors[0]
        seconds = 1 / self.scene.fps
        across = ("right" in pressed) - ("left" in pressed)
        downwards = ("down" in pressed) - ("up" in pressed)
        y, leap_s = actor.y, max(0.0, self.leap_s - seconds)
        if actor.support == "air":
            y = min(max(y + CLIMB * downwards * seconds, 0.25), 0.75)
        elif downwards < 0 and leap_s == 0:
            leap_s = LEAP_S
        x = min(max(actor.x + SPEED * across * seconds, 0.12), 0.88)
        facing = {1: "right", -1: "left", 0: actor.direction}[across]
        moved = replace(actor, x=x, y=y, direction=facing)
        return Game(scene=replace(self.scene, actors=(moved,)), moved=self.moved + bool(across), leap_s=leap_s)

    def picture(self, look: Look = "plain") -> UInt8[Tensor, "height width rgb"]:
        """Render the present state."""
        actor = self.scene.actors[0]
        done = 1 - self.leap_s / LEAP_S
        lift = 4 * LEAP * done * (1 - done) if self.leap_s else 0.0
        # The renderer adds the displacement since frame 0, so it is subtracted here.
        way = (1 if actor.direction == "right" else -1) * SPEED * self.moved / self.scene.fps
        shown = replace(self.scene, actors=(replace(actor, x=actor.x - way, y=actor.y - lift),))
        return render([shown], look, frames=range(self.moved, self.moved + 1))[0, 0]
