"""The pickled forms of flow_grpo's reward-server and of verl-omni, read as plain data only.

A request has `images`, bytes of image files, and `prompts`, or `meta_datas` with a `prompt` each.
The answer has every key that these clients look for, so that one place serves them all.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from .unpickle import RefusedPickleError, plain_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .service import Service

NOT_APPLICABLE = -10.0
"""What a group's scores have for the images that are not of this group (GenEval's server)."""


def router(service: Service) -> APIRouter:
    """The routes: below the server, and below each of its models."""
    routes = APIRouter(tags=["pickle"])

    @routes.post("/")
    async def score(request: Request) -> Response:
        """Scores of the first model."""
        return await _scores(None, request)

    @routes.post("/models/{model}/pickle")
    async def score_with(model: str, request: Request) -> Response:
        """Scores of this model."""
        return await _scores(model, request)

    async def _scores(model: str | None, request: Request) -> Response:
        try:
            asked = await asyncio.to_thread(plain_data, await request.body())
            images, prompts = _checked(asked)
        except RefusedPickleError as error:
            return _pickled({"error": str(error)}, 400)
        (results,) = await service.score([model], images, prompts)
        for row, result in enumerate(results):
            if result.error is not None:
                # verl-omni reads errors from good answers; flow_grpo would take one for scores.
                status = 200 if "metadata" in asked else 422
                return _pickled({"error": f"image {row}: {result.error}"}, status)
        return _pickled(_answer([result.score for result in results], asked), 200)

    return routes


def _checked(asked: Any) -> tuple[list[object], list[object]]:  # noqa: ANN401 (what was pickled)
    """The images and prompts of a request.

    Raises:
        RefusedPickleError: It has another form.
    """
    msg = (
        "expected a dictionary with images, a list of bytes, and prompts, as many strings, or "
        "meta_datas, as many dictionaries with a prompt"
    )
    if not isinstance(asked, dict) or not isinstance(asked.get("images"), list):
        raise RefusedPickleError(msg)
    images, prompts = asked["images"], asked.get("prompts")
    if prompts is None and isinstance(metas := asked.get("meta_datas"), list):
        prompts = [meta.get("prompt") if isinstance(meta, dict) else None for meta in metas]
    if not isinstance(prompts, list | tuple) or len(prompts) != len(images):
        raise RefusedPickleError(msg)
    if not all(isinstance(image, bytes) for image in images):
        raise RefusedPickleError(msg)
    return images, list(prompts)


def _answer(scores: Sequence[float | None], asked: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"scores": list(scores), "outputs": list(scores)}
    if "meta_datas" in asked:
        tags = [str(meta.get("tag", "all")) for meta in asked["meta_datas"]]
        groups = {
            tag: [
                score if own == tag else NOT_APPLICABLE
                for own, score in zip(tags, scores, strict=True)
            ]
            for tag in dict.fromkeys(tags)
        }
        answer |= {"rewards": list(scores), "strict_rewards": list(scores)}
        answer |= {"group_rewards": groups, "group_strict_rewards": groups}
    return answer


def _pickled(answer: dict[str, Any], status: int) -> Response:
    return Response(pickle.dumps(answer), status, media_type="application/octet-stream")
