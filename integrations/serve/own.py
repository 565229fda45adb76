"""The server's own protocol: JSON and multipart for people, tensors for `stablepref.load`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from pydantic import BaseModel, Field

from .service import TooManyImagesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .service import Result, Service

router = APIRouter(prefix="/v1", tags=["stablepref"])


class FileImage(BaseModel):
    """An image file in a folder that the server allows."""

    path: str = Field(description="Relative to the folder, or absolute.")


class ScoreRequest(BaseModel):
    """Images and their prompts."""

    model: str | None = Field(None, description="A name of /models; by default the first.")
    images: list[str | FileImage] = Field(
        fail_fast=True, description="Each base64 of an image file, or a path in an allowed folder."
    )
    prompts: str | Annotated[list[str], Field(fail_fast=True)] = Field(
        "", description="One for all images, or one for each; none for models that need none."
    )


class ScoreAnswer(BaseModel):
    """A score, or the reason why there is none, for each image in its place."""

    model: str
    unit: str
    scores: list[float | None]
    errors: list[str | None]


@router.post("/score")
async def score(request: Request, asked: ScoreRequest) -> ScoreAnswer:
    """Score images that are in the request as base64."""
    images = [
        one.model_dump() if isinstance(one, FileImage) else one  # as the reader takes it
        for one in asked.images
    ]
    return await _answer(request.app.state.service, asked.model, images, asked.prompts)


@router.post("/score/files")
async def score_files(
    request: Request,
    images: Annotated[list[UploadFile], File(description="Image files.")],
    prompts: Annotated[list[str], Form(description="One for all images, or one for each.")] = [""],  # noqa: B006 (FastAPI takes a copy)
    model: Annotated[str | None, Form(description="A name of /models.")] = None,
) -> ScoreAnswer:
    """Score image files that are uploaded as multipart form data."""
    data = [await image.read() for image in images]
    one_or_all = prompts[0] if len(prompts) == 1 else prompts
    return await _answer(request.app.state.service, model, data, one_or_all)


@router.post("/models/{model}/tensors")
async def score_tensors(request: Request, model: str) -> dict[str, Any]:
    """Score what `stablepref.load("http://host:port/model")` sends: see stablepref.models.wire."""
    service: Service = request.app.state.service
    try:
        results = await service.score_packed(model, await request.body())
    except TooManyImagesError:
        raise  # which has a status of its own
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return _columns(results)


async def _answer(
    service: Service, model: str | None, images: Sequence[object], prompts: str | list[str]
) -> ScoreAnswer:
    if isinstance(prompts, str):
        prompts = [prompts] * len(images)
    if not images or len(prompts) != len(images):
        detail = f"{len(images)} images and {len(prompts)} prompts; expected one, or one for each"
        raise HTTPException(422, detail)
    served = service.model(model)
    (results,) = await service.score([served.name], images, prompts)
    return ScoreAnswer(model=served.name, unit=served.scorer.unit, **_columns(results))


def _columns(results: Sequence[Result]) -> dict[str, Any]:
    return {"scores": [one.score for one in results], "errors": [one.error for one in results]}
