"""Flow-Factory's remote reward: `POST /compute` below the server, or below one of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, final

from fastapi import APIRouter
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from .service import Service


@final
class ComputeRequest(BaseModel):
    """What its client sends, for groups as well as for samples one by one."""

    prompt: Annotated[list[str], Field(fail_fast=True)]
    image: Annotated[list[str], Field(fail_fast=True)] | None = None
    video: list[Any] | None = None


def router(service: Service) -> APIRouter:
    """Flow-Factory's routes: `server_url` is the server, or `/models/NAME` of it."""
    routes = APIRouter(tags=["Flow-Factory"])

    @routes.get("/models/{model}/health")
    async def health(model: str) -> dict[str, str]:
        """Whether this model is served."""
        service.model(model)
        return {"status": "ok"}

    @routes.post("/compute")
    async def compute(asked: ComputeRequest) -> dict[str, Any]:
        """Scores of the first model."""
        return await _rewards(None, asked)

    @routes.post("/models/{model}/compute")
    async def compute_with(model: str, asked: ComputeRequest) -> dict[str, Any]:
        """Scores of this model."""
        return await _rewards(model, asked)

    async def _rewards(model: str | None, asked: ComputeRequest) -> dict[str, Any]:
        """The rewards; or an error, for the protocol has no place for one image's."""
        if asked.video is not None:
            return {"error": "this server scores images, and no videos"}
        images = asked.image or []
        if len(images) != len(asked.prompt):
            return {"error": f"{len(images)} images and {len(asked.prompt)} prompts"}
        (results,) = await service.score([model], images, asked.prompt)
        for row, result in enumerate(results):
            if result.error is not None:
                return {"error": f"image {row}: {result.error}"}
        return {"rewards": [result.score for result in results]}

    return routes
