"""cosmos-rl's reward service: requests are put into a queue, and their results asked for later."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, final

from fastapi import APIRouter, Form, HTTPException, Request

from stablepref.runtime.bounded_json import loads

from .images import from_npy

if TYPE_CHECKING:
    from .service import Result, Service

KEPT_SECONDS: Final = 600
MOST_KEPT: Final = 4096


@final
@dataclass(frozen=True)
class _Job:
    """A request whose results may be asked for.

    Attributes:
        names: The models.
        task: Their results.
        shape: Of the images.
        started: In `time.monotonic` seconds.
        seconds: What it took, once it is done.
    """

    names: list[str]
    task: asyncio.Task[list[list[Result]]]
    shape: tuple[int, ...]
    started: float
    seconds: list[float]


@final
class _Jobs:
    """The latest requests, for ten minutes."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, _Job] = OrderedDict()

    def add(self, job: _Job) -> str:
        """Keep a request, and forget the oldest ones that are done.

        Raises:
            HTTPException: Too many wait.
        """
        now = time.monotonic()
        for key, old in list(self._jobs.items()):
            stale = now - old.started > KEPT_SECONDS or len(self._jobs) >= MOST_KEPT
            if old.task.done() and stale:
                del self._jobs[key]
            else:
                break
        if len(self._jobs) >= MOST_KEPT:
            job.task.cancel()
            raise HTTPException(503, f"{MOST_KEPT} requests wait", {"Retry-After": "1"})
        key = str(uuid.uuid4())
        self._jobs[key] = job
        return key

    def get(self, key: str) -> _Job | None:
        """The request of a key."""
        return self._jobs.get(key)

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """What is still being computed."""
        return [job.task for job in self._jobs.values() if not job.task.done()]


def router(service: Service) -> APIRouter:
    """cosmos-rl's routes."""
    routes = APIRouter(prefix="/api/reward", tags=["cosmos-rl"])
    jobs = _Jobs()
    service.before_close(jobs.unfinished)

    @routes.post("/ping")
    async def ping(info_data: Annotated[str, Form()] = "{}") -> dict[str, str]:
        """Whether the server is there."""
        del info_data
        return {"message": "Ping request received"}

    @routes.post("/enqueue")
    async def enqueue(request: Request) -> dict[str, str]:
        """Take images in: JSON, a new line, and the bytes of `numpy.save`."""
        head, _, data = (await request.body()).partition(b"\n")
        asked = _described(head)
        names = [name for name, weight in asked["reward_fn"].items() if weight > 0]
        for name in names:
            if name not in service.models:
                known = ", ".join(service.models)
                raise HTTPException(400, f"no reward {name!r:.100}; expected one of {known}")
        try:
            images = from_npy(data)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        prompts = asked["prompts"]
        if images.ndim != 4 or len(images) != len(prompts):
            detail = f"images {images.shape}, {len(prompts)} prompts; expected (B, H, W, 3) and B"
            raise HTTPException(400, detail)
        if len(images) > (most := service.settings.max_images):
            raise HTTPException(413, f"{len(images)} images; this server takes {most} at once")
        started = time.monotonic()
        task = asyncio.create_task(service.score(names, list(images), prompts))
        job = _Job(names, task, images.shape, started, [])
        task.add_done_callback(lambda _: job.seconds.append(time.monotonic() - started))
        return {"uuid": jobs.add(job)}

    @routes.post("/pull")
    async def pull(
        uuid: Annotated[str, Form()],
        type: Annotated[str, Form()] = "",  # noqa: A002 (the protocol's name)
    ) -> dict[str, Any]:
        """The scores of a request: 400 while they are not there, 422 where an image has none."""
        job = jobs.get(uuid)
        if job is None:
            raise HTTPException(404, "there is no request of this uuid, or no more")
        if not job.task.done():
            raise HTTPException(400, "the scores are not there yet")
        scores = {}
        for name, column in zip(job.names, job.task.result(), strict=True):
            for row, result in enumerate(column):
                if result.error is not None:
                    raise HTTPException(422, f"{name}, image {row}: {result.error}")
            scores[name] = [result.score for result in column]
        return {
            "scores": {type: scores[type]} if type in scores else scores,
            "input_info": {"shape": list(job.shape)},
            "duration": job.seconds[0] if job.seconds else 0.0,
            "decoded_duration": 0.0,
            "type": type,
        }

    return routes


def _described(head: bytes) -> dict[str, Any]:
    """The JSON of a request, of the form that it should have.

    Raises:
        HTTPException: It has another.
    """
    try:
        asked = loads(head)
    except ValueError as error:
        raise HTTPException(400, "the body begins with no line of JSON") from error
    rewards = asked.get("reward_fn") if isinstance(asked, dict) else None
    if (
        not isinstance(rewards, dict)
        or not all(type(weight) in (int, float) for weight in rewards.values())
        or not isinstance(asked.get("prompts"), list)
    ):
        detail = "expected prompts, a list, and reward_fn, weights by the names of rewards"
        raise HTTPException(400, detail)
    if asked.get("media_type", "image") != "image" or asked.get("video_infos"):
        raise HTTPException(400, "this server scores images, and no videos")
    return asked
