"""Bodies of requests to the video API, as JSON or as a form."""

import json
from typing import Annotated, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from longtake.core.errors import InputError
from longtake.serve.assets import MiB
from longtake.serve.errors import TooLargeError
from longtake.serve.messages import AssetId, Guidance, Prompt, Seed, Steps

MAX_TEXT_BYTES = 28 * MiB  # enough for a picture in base64

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Metadata = Annotated[  # the client's own notes on a video, limited as in OpenAI's API
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
VideoId = Annotated[str, Field(pattern=r"^video_[a-z0-9]{24}$")]


class Body(BaseModel):
    """Base of all requests; unknown fields are refused, so that typing mistakes are reported."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    prompt: Prompt
    seed: Seed | None = None  # not in OpenAI's API
    metadata: Metadata = Field(default_factory=dict)


class Picture(BaseModel):
    """A picture given by URL or by id, not as a file of the form."""

    model_config = ConfigDict(extra="forbid")

    image_url: str | None = None  # data:image/...;base64,...
    file_id: AssetId | None = None  # id that POST /api/assets has returned


class Existing(BaseModel):
    """A reference to a video of this server."""

    model_config = ConfigDict(extra="forbid")

    id: VideoId


class Create(Body):
    """Request for a video from a prompt, or from a picture and a prompt."""

    model: str | None = None
    seconds: Seconds = 4.0
    size: str | None = None
    input_reference: UploadFile | Picture | None = None
    # not in OpenAI's API; of two names, the second is that of diffusers
    steps: Steps | None = Field(default=None, validation_alias=AliasChoices("steps", "num_inference_steps"))
    guidance: Guidance | None = Field(default=None, validation_alias=AliasChoices("guidance", "guidance_scale"))
    negative_prompt: Prompt | None = None


class Remix(Body):
    """Request for a video that shares the first chunks of another one."""

    from_chunk: int = Field(default=0, ge=0)  # not in OpenAI's API: number of shared chunks


class Edit(Body):
    """Request for a video that restyles another one."""

    video: UploadFile | Existing
    strength: float | None = Field(default=None, gt=0, le=1)  # not in OpenAI's API: 1 keeps nothing of its look


class Extend(Body):
    """Request for a video that continues another one."""

    video: UploadFile | Existing
    seconds: Seconds


def body_of(asked: type[Body], example: dict[str, object]) -> dict[str, Any]:
    """OpenAPI document of a request's body, JSON or a form, with an example; the routes read it themselves."""
    schema = asked.model_json_schema()
    named = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(named[part["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in part.items()}

    content = {"schema": inlined(schema), "example": example}
    forms = {"multipart/form-data": {"schema": content["schema"]}}
    return {"requestBody": {"required": True, "content": {"application/json": content, **forms}}}


class Form:
    """The fields of a request, a JSON object or a form. A context manager, which closes files of the form."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._form = None

    async def __aenter__(self) -> dict[str, Any]:
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            self._form = await self._request.form(max_files=1, max_fields=50, max_part_size=MAX_TEXT_BYTES)
            return _nested(self._form.multi_items())
        text = bytearray()
        async for piece in self._request.stream():
            text += piece
            if len(text) > MAX_TEXT_BYTES:
                raise TooLargeError(f"at most {MAX_TEXT_BYTES // MiB} MiB of JSON are taken; send files in a form")
        try:
            fields = await run_in_threadpool(json.loads, bytes(text))
        except (ValueError, RecursionError) as error:  # of wrong syntax, too many digits, too deep nesting
            raise InputError("expected a form, or JSON with the header Content-Type: application/json") from error
        if not isinstance(fields, dict):
            raise InputError("expected a JSON object")
        return fields

    async def __aexit__(self, *_: object) -> None:
        if self._form is not None:
            await self._form.close()


def checked(kind: type[Any], fields: dict[str, Any]) -> Any:
    """Validate the fields of a request.

    Raises:
        RequestValidationError: a field is missing or has a wrong value.
    """
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def _nested(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Nest the fields of a form: `video[id]` becomes `id` of `video`."""
    fields: dict[str, Any] = {}
    for name, value in items:
        outer, _, inner = name.partition("[")
        if not inner:
            fields[name] = value
            continue
        part = fields.setdefault(outer, {})
        if not isinstance(part, dict):
            raise InputError(f"{outer} was given twice, as a value and as an object")
        part[inner.removesuffix("]")] = value
    return fields
