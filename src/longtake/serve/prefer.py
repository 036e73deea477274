"""The page on which videos are compared blindly: two films, three keys, one vote after the other."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from longtake.evals.preferences import Ballot
from longtake.serve.errors import HANDLERS

NAMES = ["localhost", "127.0.0.1"]  # by which browsers may know it: it is for this machine alone


class Answer(BaseModel):
    """What somebody prefers."""

    model_config = ConfigDict(extra="forbid")

    pair: Annotated[int, Field(ge=0)]
    choice: Literal["left", "right", "tie"]


class Question(BaseModel):
    """The next pair; None when all have been answered."""

    pair: int | None
    prompt: str
    done: int
    of: int


def create_app(ballot: Ballot, folders: Mapping[str, Path]) -> FastAPI:
    """The application for some pairs of films in folders, by the name of whose they are."""
    app = FastAPI(title="longtake prefer", docs_url=None, redoc_url=None, exception_handlers=HANDLERS)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(
            str(files("longtake.serve") / "page" / "prefer.html"), headers={"Cache-Control": "no-cache"}
        )

    @app.get("/next")
    def question() -> Question:
        pair = ballot.next()
        film = "" if pair is None else Path(ballot.pairs[pair].film).stem
        head, _, number = film.rpartition("-")  # "a prompt-0.mp4"
        prompt = head if number.isdigit() else film
        return Question(pair=pair, prompt=prompt, done=min(len(ballot.votes), len(ballot.pairs)), of=len(ballot.pairs))

    @app.get("/films/{pair}/{side}")
    def film(pair: int, side: Literal["left", "right"]) -> FileResponse:
        if not 0 <= pair < len(ballot.pairs):
            raise HTTPException(404, "there is no such pair")
        found = ballot.pairs[pair]
        path = folders[found.left if side == "left" else found.right] / found.film
        return FileResponse(path, headers={"Cache-Control": "no-store"})

    @app.post("/vote")
    def vote(answer: Answer) -> Question:
        ballot.vote(answer.pair, answer.choice)
        return question()

    app.mount("/page", StaticFiles(packages=[("longtake.serve", "page")]), name="page")
    return app
