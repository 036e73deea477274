"""Routes that list the model of the server, as OpenAI's clients ask for it."""

from fastapi import APIRouter, Request

from longtake.serve.errors import NotFoundError

router = APIRouter(prefix="/v1/models")


@router.get("")
def listed(request: Request) -> dict[str, object]:
    """List the models: the one that is served."""
    return {"object": "list", "data": [_model(request)]}


@router.get("/{name:path}")
def one(request: Request, name: str) -> dict[str, object]:
    """Return a model."""
    model = _model(request)
    if name != model["id"]:
        raise NotFoundError(f'there is no model "{name}"; the model here is "{model["id"]}"')
    return model


def _model(request: Request) -> dict[str, object]:
    state = request.app.state
    return {"id": state.host.about.model, "object": "model", "created": state.started_at, "owned_by": "longtake"}
