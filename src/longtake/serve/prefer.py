"""The web application for blind pairwise comparison of videos."""

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

NAMES = ["localhost", "127.0.0.1"]  # accepted Host headers: the page is for this machine only


class Answer(BaseModel):
    """A vote on a pair."""

    model_config = ConfigDict(extra="forbid")

    pair: Annotated[int, Field(ge=0)]
    choice: Literal["left", "right", "tie"]


class Question(BaseModel):
    """The next pair to compare; `pair` is None when all pairs have votes."""

    pair: int | None
    prompt: str
    done: int
    of: int


def create_app(ballot: Ballot, folders: Mapping[str, Path]) -> FastAPI:
    """Create the application for a ballot; `folders` maps the names in its pairs to the folders of their films."""
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
