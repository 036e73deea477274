"""The words on the wire. Commands go up, events come down; both are JSON objects with a `type`.

What happens in a session is written into its log, and each entry of the log has a number `n`: chunks, frames, cues. A
viewer who was away asks for everything after the last number it has. What concerns one moment or one viewer alone
(`status`, `refused`, `credit`) has no number and is not kept.

`docs/protocol.md` tells the same in words, with an example of each; `docs/protocol.schema.json` is made of this file.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from longtake.core.cue import CueFields, Guidance, Prompt, Seed, Steps

VERSION = 2

SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,32}$")]
AssetId = Annotated[str, Field(pattern=r"^[a-z0-9]{26}$")]
ChunkId = Annotated[int, Field(ge=0, lt=2**31)]  # counted from 0 in the order made, whatever the branch
EventId = Annotated[str, Field(min_length=1, max_length=64)]


class Message(BaseModel):
    """What all messages share: unknown fields are refused, so that a typing mistake is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Up: what a viewer can say.


class Frames(Message):
    """A source whose pictures the viewer sends, each a JPEG in a binary message; the newest win."""

    kind: Literal["frames"] = "frames"


class VideoRequest(Message):
    """A source that was uploaded."""

    kind: Literal["video"] = "video"
    asset: AssetId


class GameRequest(Message):
    """A source that is played with `keys`."""

    kind: Literal["game"] = "game"
    subject: str = Field(default="tiger", max_length=40)
    place: str = Field(default="green_park", max_length=40)


Source = Annotated[Frames | VideoRequest | GameRequest, Field(discriminator="kind")]


class Open(Message):
    """Begin a session. The first chunk is made as soon as there is room."""

    type: Literal["open"] = "open"
    version: Literal[2] = VERSION
    prompt: Prompt
    seed: Seed = 0
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: Prompt | None = None
    image: AssetId | None = Field(default=None, description="A picture that the take begins with")
    clip: AssetId | None = Field(default=None, description="A video that the take goes on from")
    source: Source | None = Field(default=None, description="A video that the take follows while it arrives")
    strength: float | None = Field(
        default=None, gt=0, le=1, description="1 leaves nothing of the source's look; null: as suits the model"
    )


class Order(Message):
    """What all commands share: `event_id` comes back in the answer."""

    event_id: EventId | None = None


class CueCommand(Order, CueFields):
    """Change the take at the next chunk, or later."""

    type: Literal["cue"] = "cue"
    at: int | None = Field(default=None, ge=0, description="Index of the first chunk that shows it")
    at_s: float | None = Field(default=None, ge=0, description="Or a time of the take")
    image: AssetId | None = Field(default=None, description="A picture that the take goes on from")


class Cancel(Order):
    """Take back a cue that waits."""

    type: Literal["cancel"] = "cancel"
    cue: int = Field(ge=1)


class RewindCommand(Order):
    """Make a chunk the last one again. What was made after it stays in the log, on a branch that ended."""

    type: Literal["rewind"] = "rewind"
    to: ChunkId | None = Field(description="None: the beginning")


class Retake(Order, CueFields):
    """Go on from a chunk on a new branch, under another prompt or other settings perhaps."""

    type: Literal["retake"] = "retake"
    after: ChunkId | None = Field(description="None: from the beginning")


class Pause(Order):
    """Make nothing until `resume`."""

    type: Literal["pause"] = "pause"


class Resume(Order):
    """Go on."""

    type: Literal["resume"] = "resume"


class Close(Order):
    """End the session. What was made stays to be watched and saved."""

    type: Literal["close"] = "close"


class SeenCommand(Order):
    """The chunk that is on the viewer's screen. The model runs at most `lead` chunks ahead of it."""

    type: Literal["seen"] = "seen"
    chunk: ChunkId


class Keys(Order):
    """The keys of the game that are held down."""

    type: Literal["keys"] = "keys"
    held: list[Literal["left", "right", "up", "down"]] = Field(max_length=4)


Command = Annotated[
    CueCommand | Cancel | RewindCommand | Retake | Pause | Resume | Close | SeenCommand | Keys,
    Field(discriminator="type"),
]


# Down: what the server says.


class Point(Message):
    """A point of a take: the first frame of a chunk."""

    index: int = Field(description="Of the chunk, on its branch")
    frame: int
    t: float = Field(description="Seconds")


class Numbered(Message):
    """An entry of the log."""

    n: int = Field(default=-1, description="Its number; they have no gaps")


class Opened(Numbered):
    """The first entry."""

    type: Literal["opened"] = "opened"
    version: Literal[1, 2] = VERSION  # 1: an earlier log, whose entries are the same
    model: str
    prompt: str
    seed: int
    fps: float
    width: int
    height: int
    codec: str = Field(description="Of the frames, as WebCodecs names it")
    lead: int = Field(description="Chunks that may be made ahead of what is seen")
    source: Literal["frames", "video", "game"] | None = None


class ChunkEvent(Numbered):
    """A chunk was made; its frames follow."""

    type: Literal["chunk"] = "chunk"
    chunk: ChunkId
    parent: ChunkId | None
    branch: int
    index: int = Field(description="On its branch")
    start_frame: int
    num_frames: int
    prompt: str
    cues: list[int] = Field(description="That it is the first to show")
    made_at: float = Field(description="Server's clock, seconds since 1970, before the frames were encoded")
    timings: dict[str, float] = Field(description="Seconds by what was done")


class Frame(Numbered):
    """A frame; its bytes follow the JSON. The first of a chunk is a key frame."""

    type: Literal["frame"] = "frame"
    chunk: ChunkId
    k: int = Field(description="In the chunk, from 0")
    frame: int = Field(description="In the take, from 0")


class AcceptedCue(Numbered):
    """A cue was accepted, and which chunk it is due at."""

    type: Literal["accepted"] = "accepted"
    event_id: EventId | None
    cue: int
    words: str | None
    accepted_at: Point
    due_at: Point


class Applied(Numbered):
    """A cue shows from this chunk on."""

    type: Literal["applied"] = "applied"
    event_id: EventId | None
    cue: int
    chunk: ChunkId
    at: Point


class Cancelled(Numbered):
    """A cue was taken back."""

    type: Literal["cancelled"] = "cancelled"
    event_id: EventId | None
    cue: int


class HeadEvent(Numbered):
    """The next chunk will follow another one: after a rewind, or on a new branch."""

    type: Literal["head"] = "head"
    event_id: EventId | None
    branch: int
    chunk: ChunkId | None
    prompt: str


class Ended(Numbered):
    """Nothing more will be made: closed, the source ended, it is long enough, it failed, or its device was lost."""

    type: Literal["ended"] = "ended"
    event_id: EventId | None = None
    why: Literal["closed", "source", "failed", "length", "lost"]
    message: str | None = None


class Status(Message):
    """How it stands, for all viewers, when it changes."""

    type: Literal["status"] = "status"
    state: Literal["queued", "rebuilding", "running", "buffered", "paused", "waiting_for_input", "idle", "ended"]
    position: int | None = Field(default=None, description="In the queue for the device, from 1")
    wait_s: float | None = Field(default=None, description="Estimated")
    rebuilt: float | None = Field(default=None, description="Share of the past whose memory has been rebuilt")
    viewers: int = 1
    dropped: int = Field(default=0, description="Frames of a live source that came too fast")


class Done(Message):
    """A command that has no entry of its own was followed."""

    type: Literal["done"] = "done"
    event_id: EventId | None


class Refused(Message):
    """A command could not be followed, and why; nothing has changed."""

    type: Literal["refused"] = "refused"
    event_id: EventId | None = None
    code: str
    message: str


class Credit(Message):
    """So many more pictures of the source may be sent."""

    type: Literal["credit"] = "credit"
    frames: int


Event = Annotated[
    Opened
    | ChunkEvent
    | Frame
    | AcceptedCue
    | Applied
    | Cancelled
    | HeadEvent
    | Ended
    | Status
    | Done
    | Refused
    | Credit,
    Field(discriminator="type"),
]

commands: TypeAdapter[Command] = TypeAdapter(Command)
events: TypeAdapter[Event] = TypeAdapter(Event)
