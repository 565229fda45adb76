"""The labelling page as an ASGI application."""

from __future__ import annotations

import io
from functools import lru_cache
from hashlib import blake2b
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from stablepref.data.labels import Answer  # noqa: TC001 (pydantic reads it)
from stablepref.evaluation.label_agreement import label_agreement
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.output.pages import render_template

from .guard import Guard
from .session import Progress, Session, Shown, StaleAnswerError

if TYPE_CHECKING:
    from pathlib import Path

    from .questions import Question

PACKAGE: Final = "stablepref.integrations.label"
MOST_PIXELS: Final = 2048
"""A side of a picture in the browser at most; scorers see it whole."""
KEPT: Final = 32
"""Encoded pictures that are kept."""


class Annotator(BaseModel):
    """Who asks or answers."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    annotator: Annotated[str, Field(min_length=1, max_length=60)]

    def name(self) -> str:
        """The name.

        Raises:
            HTTPException: It holds signs that cannot be printed.
        """
        if not self.annotator.isprintable():
            raise HTTPException(422, "a name must be one line of text")
        return self.annotator


class Given(Annotator):
    """An answer."""

    token: Annotated[str, Field(max_length=60)]
    answer: Answer
    ranks: Annotated[list[int], Field(max_length=9)] = []
    seconds: Annotated[float | None, Field(ge=0, le=1e6)] = None


def create_app(session: Session, *, key: str | None = None) -> Guard:
    """The application that asks a session's questions.

    Args:
        session: The questions and the answers.
        key: What strangers must have; None lets this machine's own browsers in.
    """
    app = FastAPI(title="stablepref label", docs_url=None, redoc_url=None, openapi_url=None)
    files = {
        image_id(one, place): path
        for one in session.questions.values()
        for place, path in enumerate(one.images)
    }

    @lru_cache(maxsize=KEPT)
    def encoded(name: str) -> bytes:
        return _png(files[name])

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(render_template("label.html.j2", package=PACKAGE))

    @app.get("/label.css")
    def style() -> Response:
        text = render_template("label.css.j2", package=PACKAGE)
        return Response(text, media_type="text/css")

    @app.get("/label.js")
    def script() -> Response:
        text = resources.files(PACKAGE).joinpath("templates", "label.js").read_text("utf-8")
        return Response(text, media_type="text/javascript")

    @app.get("/agreement")
    def agreement() -> HTMLResponse:
        with session.reading() as labels:
            found = label_agreement(list(labels))
        tables = [table.html() for table in found.tables() if table.rows]  # escaped there
        return HTMLResponse(render_template("agreement.html.j2", package=PACKAGE, tables=tables))

    @app.get("/images/{name}")
    def image(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such picture")
        try:
            content = encoded(name)
        except ImageError as error:
            raise HTTPException(410, "this picture cannot be shown") from error
        return Response(
            content, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"}
        )

    @app.post("/annotators")
    def annotators(_: dict[str, Any]) -> dict[str, Any]:
        with session.reading():
            return {"annotators": session.journal.annotators()}

    @app.post("/next")
    def ask(asked: Annotator) -> dict[str, Any]:
        return _screen(*session.next(asked.name()))

    @app.post("/answer")
    def answer(given: Given) -> dict[str, Any]:
        name = given.name()
        try:
            session.answer(name, given.token, given.answer, given.ranks, given.seconds)
        except StaleAnswerError as error:
            return _screen(*session.next(name)) | {"note": str(error)}
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        except OSError as error:
            raise HTTPException(
                507, f"the answer could not be written: {error.strerror}"
            ) from error
        return _screen(*session.next(name))

    @app.post("/undo")
    def undo(asked: Annotator) -> dict[str, Any]:
        done = session.undo(asked.name())
        return _screen(*session.next(asked.name())) | ({} if done else {"note": "nothing to undo"})

    return Guard(app, key)


def image_id(question: Question, place: int) -> str:
    """The name by which a picture is served; it says nothing of the picture's own name or place."""
    return blake2b(f"{question.id} {place}".encode(), digest_size=12).hexdigest()


def _screen(shown: Shown | None, progress: Progress) -> dict[str, Any]:
    """What the page shows; nothing that tells who made a picture."""
    found: dict[str, Any] = {"done": progress.done, "total": progress.total, "token": None}
    if shown is not None:
        found |= {
            "token": shown.token,
            "prompt": shown.question.prompt,
            "images": [f"images/{image_id(shown.question, place)}" for place in shown.order],
        }
    return found


def _png(path: Path) -> bytes:
    """A picture as scorers see it, upright and opaque, without metadata.

    Raises:
        ImageError: It cannot be read.
    """
    picture = decode(Source(0, path.name, path))
    assert isinstance(picture, Image.Image), "a file is decoded by Pillow"
    if max(picture.size) > MOST_PIXELS:
        picture = picture.copy()
        picture.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # As fast as can be: it goes to this machine's own browser.
    Image.Image.save(picture, buffer, "PNG", compress_level=1)
    return buffer.getvalue()
