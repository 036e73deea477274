"""The API's own description: every body that can be sent is described, with an example that the server takes."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from longtake.serve.app import ServerSettings, create_app
from longtake.serve.fleet import Drain
from longtake.serve.messages import Open, commands
from longtake.serve.videos import Create, Edit, Extend, Remix

BODIES: dict[str, type[BaseModel]] = {
    "/api/takes": Open,
    "/api/fleet/drain": Drain,
    "/v1/videos": Create,
    "/v1/videos/edits": Edit,
    "/v1/videos/extensions": Extend,
    "/v1/videos/{video_id}/remix": Remix,
}
COMMANDS = "/api/takes/{session_id}/commands"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app = create_app(ServerSettings(folder=Path(tmp_path_factory.mktemp("kept"))))
    document = app.openapi()
    app.state.store.close()
    return {
        path: methods["post"]["requestBody"]["content"]["application/json"]
        for path, methods in document["paths"].items()
        if "requestBody" in methods.get("post", {})
    }


def example_of(content: dict[str, Any]) -> dict[str, Any]:
    found = content.get("example") or next(iter(content["schema"].get("examples", content.get("examples", ()))))
    assert isinstance(found, dict)
    return found


def test_every_body_has_an_example_that_is_taken(described: dict[str, Any]) -> None:
    assert described.keys() == {*BODIES, COMMANDS}
    for path, model in BODIES.items():
        taken = model.model_validate(example_of(described[path]))
        assert taken.model_dump(exclude_unset=True).keys() == example_of(described[path]).keys()
    assert commands.validate_python(example_of(described[COMMANDS])).type == "cue"


def test_schemas_of_bodies_need_nothing_from_elsewhere(described: dict[str, Any]) -> None:
    schema = described["/v1/videos/edits"]["schema"]
    assert {"prompt", "video", "strength", "seed"} <= schema["properties"].keys()
    assert "$ref" not in str(schema)
    assert set(schema["required"]) == {"prompt", "video"}
