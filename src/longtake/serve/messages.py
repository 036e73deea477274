"""The messages of the protocol. Viewers send commands, the server sends events; both are JSON objects with a `type`.

Everything that happens in a session is an entry of its log with a number `n`: chunks, frames, cues. A viewer that
reconnects requests the entries after the last number it has. Events that concern one moment or one viewer (`status`,
`done`, `refused`, `credit`) have no number and are not stored.

`docs/protocol.md` describes the messages with examples; `docs/protocol.schema.json` is generated from this file.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from longtake.core.cue import CueFields, Guidance, LoraScales, Prompt, Seed, Steps

VERSION = 2

SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,32}$")]
AssetId = Annotated[str, Field(pattern=r"^[a-z0-9]{26}$")]
ChunkId = Annotated[int, Field(ge=0, lt=2**31)]  # counted from 0 in order of generation, over all branches
MAX_EVENT_ID = 64  # characters
EventId = Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID)]


OPENING = {"prompt": "a tiger walks through a forest", "seed": 3}  # examples in the API's reference
CUE = {"type": "cue", "change": "snow starts to fall", "at_s": 4.0}


class Message(BaseModel):
    """Base of all messages; unknown fields are refused, so that typing mistakes are reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Messages to the server.


class Frames(Message):
    """A live source: the viewer sends each picture as a JPEG or PNG in a binary message; newer ones displace older."""

    kind: Literal["frames"] = "frames"


class VideoRequest(Message):
    """A source that is an uploaded video."""

    kind: Literal["video"] = "video"
    asset: AssetId


class GameRequest(Message):
    """A source that is a game, played with `keys`."""

    kind: Literal["game"] = "game"
    subject: str = Field(default="tiger", max_length=40)
    place: str = Field(default="green_park", max_length=40)


Source = Annotated[Frames | VideoRequest | GameRequest, Field(discriminator="kind")]


class Open(Message):
    """Open a session. Its first chunk is generated as soon as a slot is free."""

    type: Literal["open"] = "open"
    version: Literal[2] = VERSION
    prompt: Prompt
    seed: Seed = 0
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: Prompt | None = None
    loras: LoraScales | None = None
    image: AssetId | None = Field(default=None, description="A picture that the take begins with")
    clip: AssetId | None = Field(default=None, description="A video that the take goes on from")
    source: Source | None = Field(default=None, description="A video that the take follows while it arrives")
    strength: float | None = Field(
        default=None, gt=0, le=1, description="1 leaves nothing of the source's look; null: as suits the model"
    )


class Order(Message):
    """Base of all commands; the answer has the same `event_id`."""

    event_id: EventId | None = None


class CueCommand(Order, CueFields):
    """Change the take at the next chunk, or at a later one."""

    type: Literal["cue"] = "cue"
    at: int | None = Field(default=None, ge=0, description="Index of the first chunk that shows it")
    at_s: float | None = Field(default=None, ge=0, description="Or a time of the take")
    image: AssetId | None = Field(default=None, description="A picture that the take goes on from")


class Cancel(Order):
    """Cancel a cue that has not been applied."""

    type: Literal["cancel"] = "cancel"
    cue: int = Field(ge=1)


class RewindCommand(Order):
    """Make an earlier chunk the head again. Later chunks stay in the log, on a branch that has ended."""

    type: Literal["rewind"] = "rewind"
    to: ChunkId | None = Field(description="None: the beginning")


class Retake(Order, CueFields):
    """Continue from a chunk on a new branch, with another prompt or other settings if given."""

    type: Literal["retake"] = "retake"
    after: ChunkId | None = Field(description="None: from the beginning")


class Pause(Order):
    """Stop generation until `resume`."""

    type: Literal["pause"] = "pause"


class Resume(Order):
    """Resume generation after `pause`."""

    type: Literal["resume"] = "resume"


class Close(Order):
    """End the session. Its chunks can still be watched and exported."""

    type: Literal["close"] = "close"


class SeenCommand(Order):
    """Report the chunk on the viewer's screen. Generation runs at most `lead` chunks ahead of it."""

    type: Literal["seen"] = "seen"
    chunk: ChunkId


class Keys(Order):
    """Set the keys of the game that are held down."""

    type: Literal["keys"] = "keys"
    held: list[Literal["left", "right", "up", "down"]] = Field(max_length=4)


Command = Annotated[
    CueCommand | Cancel | RewindCommand | Retake | Pause | Resume | Close | SeenCommand | Keys,
    Field(discriminator="type"),
]


# Messages from the server.


class Point(Message):
    """A position in a take: the first frame of a chunk."""

    index: int = Field(description="Of the chunk, on its branch")
    frame: int
    t: float = Field(description="Seconds")


class Numbered(Message):
    """Base of all log entries."""

    n: int = Field(default=-1, description="Its number; they have no gaps")


class Opened(Numbered):
    """The first entry of a log: the model, the opening, the video format."""

    type: Literal["opened"] = "opened"
    version: Literal[1, 2] = VERSION  # 1: logs of an earlier version, with the same entries
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
    """A chunk was generated; its frames follow."""

    type: Literal["chunk"] = "chunk"
    chunk: ChunkId
    parent: ChunkId | None
    branch: int
    index: int = Field(description="On its branch")
    start_frame: int
    num_frames: int
    prompt: str
    cues: list[int] = Field(description="That it is the first to show")
    threads: int | None = Field(default=None, description="CPU threads that made it, which a script repeats")
    made_at: float = Field(description="Server's clock, seconds since 1970, before the frames were encoded")
    timings: dict[str, float] = Field(description="Seconds by what was done")


class Frame(Numbered):
    """A frame; its bytes follow the JSON. The first frame of a chunk is a key frame."""

    type: Literal["frame"] = "frame"
    chunk: ChunkId
    k: int = Field(description="In the chunk, from 0")
    frame: int = Field(description="In the take, from 0")


class AcceptedCue(Numbered):
    """A cue was accepted; it is due at the chunk `due_at`."""

    type: Literal["accepted"] = "accepted"
    event_id: EventId | None
    cue: int
    words: str | None
    accepted_at: Point
    due_at: Point


class Applied(Numbered):
    """A cue was applied; it takes effect from this chunk on."""

    type: Literal["applied"] = "applied"
    event_id: EventId | None
    cue: int
    chunk: ChunkId
    at: Point


class Cancelled(Numbered):
    """A cue was cancelled."""

    type: Literal["cancelled"] = "cancelled"
    event_id: EventId | None
    cue: int


class HeadEvent(Numbered):
    """The head has moved, after a rewind or to a new branch; the next chunk follows it."""

    type: Literal["head"] = "head"
    event_id: EventId | None
    branch: int
    chunk: ChunkId | None
    prompt: str


class Ended(Numbered):
    """The session has ended: closed, source ended, length reached, failed, or device lost."""

    type: Literal["ended"] = "ended"
    event_id: EventId | None = None
    why: Literal["closed", "source", "failed", "length", "lost"]
    message: str | None = None


class Status(Message):
    """The state of the session, sent to all viewers when it changes."""

    type: Literal["status"] = "status"
    state: Literal["queued", "rebuilding", "running", "buffered", "paused", "waiting_for_input", "idle", "ended"]
    position: int | None = Field(default=None, description="In the queue for the device, from 1")
    wait_s: float | None = Field(default=None, description="Estimated")
    rebuilt: float | None = Field(default=None, description="Share of the past whose memory has been rebuilt")
    viewers: int = 1
    dropped: int = Field(default=0, description="Frames of a live source that came too fast")


class Done(Message):
    """A command without a log entry of its own was executed."""

    type: Literal["done"] = "done"
    event_id: EventId | None


class Refused(Message):
    """A command was refused, with the reason; nothing has changed."""

    type: Literal["refused"] = "refused"
    event_id: EventId | None = None
    code: str
    message: str


class Credit(Message):
    """Number of further source pictures that the viewer may send."""

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
