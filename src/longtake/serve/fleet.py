"""Routes for who runs the server: its workers, and their removal. A key needs the scope "admin"."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, Field

from longtake.serve.host import SessionHost

router = APIRouter(prefix="/api/fleet")


class Drain(BaseModel):
    """Request to move all that a worker makes."""

    name: str = Field(max_length=256, description="Of a worker, or of a node")


@router.get("")
def status(request: Request) -> dict[str, object]:
    """List the workers, and what they have to do."""
    host: SessionHost = request.app.state.host
    return {"workers": [asdict(worker) for worker in host.states()]}


@router.post("/drain")
def drain(request: Request, asked: Annotated[Drain, Body(examples=[{"name": "w1"}])]) -> dict[str, object]:
    """Move the takes and videos of a worker, or of all workers of a node, to others, and end those workers."""
    host: SessionHost = request.app.state.host
    return {"drained": host.drain(asked.name)}
