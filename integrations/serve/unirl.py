"""UniRL's reward service: `POST /score`, with names of models as names of rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, final

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field, model_validator

if TYPE_CHECKING:
    from .service import Result, Service

IDENTITY = (
    "request_id",
    "sample_id",
    "group_id",
    "source_rank",
    "policy_version",
    "idempotency_key",
)


@final
class Turn(BaseModel):
    """A prompt with what was made of it."""

    text: str = ""
    image_b64: str | None = None
    video_b64: str | None = None
    video_path: str | None = None

    @model_validator(mode="after")
    def _one_medium(self) -> Turn:
        given = [self.image_b64, self.video_b64, self.video_path]
        if sum(one is not None for one in given) != 1:
            msg = "a turn needs one of image_b64, video_b64 and video_path"
            raise ValueError(msg)
        return self


@final
class Item(BaseModel):
    """One sample; what identifies it is echoed."""

    history: Annotated[list[Turn], Field(fail_fast=True)]
    required_rewards: Annotated[list[str], Field(fail_fast=True)]
    metadata: Any = None
    request_id: str | None = None
    sample_id: str | None = None
    group_id: str | None = None
    source_rank: int | None = None
    policy_version: int | None = None
    idempotency_key: str | None = None


@final
class ScoreRequest(BaseModel):
    """Samples, each with the rewards that it needs."""

    requests: Annotated[list[Item], Field(fail_fast=True)]


def router(service: Service) -> APIRouter:
    """UniRL's routes."""
    routes = APIRouter(tags=["UniRL"])

    @routes.get("/rewards")
    async def rewards() -> dict[str, list[str]]:
        """The rewards, each with its metrics."""
        return {name: ["score"] for name in service.models}

    @routes.post("/score")
    async def score(asked: ScoreRequest) -> dict[str, Any]:
        """Score the last turn of each sample; what fails is missing, and named in `errors`."""
        for item in asked.requests:
            if unknown := [name for name in item.required_rewards if name not in service.models]:
                known = ", ".join(service.models)
                raise HTTPException(400, f"no reward {unknown[0]!r:.100}; expected one of {known}")
            if not item.history:
                raise HTTPException(400, "a sample's history is empty")
        results: list[dict[str, Any]] = [{} for _ in asked.requests]
        errors: list[dict[str, str]] = [{} for _ in asked.requests]
        # Samples that need the same rewards are scored together, and each image decoded once.
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, item in enumerate(asked.requests):
            groups.setdefault(tuple(dict.fromkeys(item.required_rewards)), []).append(row)
        for names, rows in groups.items():
            turns = [asked.requests[row].history[-1] for row in rows]
            images = [turn.image_b64 for turn in turns]
            by_model = await service.score(names, images, [turn.text for turn in turns])
            for name, column in zip(names, by_model, strict=True):
                for row, turn, result in zip(rows, turns, column, strict=True):
                    _put(results[row], errors[row], name, turn, result)
        return {
            "protocol_version": "1",
            "results": results,
            "errors": errors,
            "identities": [_identity(service, item) for item in asked.requests],
        }

    return routes


def _put(
    scores: dict[str, Any], errors: dict[str, str], name: str, turn: Turn, result: Result
) -> None:
    if turn.image_b64 is None:
        errors[name] = "this server scores images, and no videos"
    elif result.error is not None:
        errors[name] = result.error
    else:
        scores[name] = {"score": result.score}


def _identity(service: Service, item: Item) -> dict[str, Any]:
    """What the client sent, and the version of the scorer where there is one."""
    only = item.required_rewards[0] if len(item.required_rewards) == 1 else None
    version = service.models[only].fingerprint if only is not None else None
    return {key: getattr(item, key) for key in IDENTITY} | {"scorer_version": version}
