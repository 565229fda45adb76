"""The scorers of a server: requests in, a score or a reason for each image out."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.images.sources import UnusableImageError
from stablepref.models.registry import model_name
from stablepref.models.wire import PICTURE, prepare, unpack
from stablepref.scoring.prompts import check_prompts
from stablepref.weights.fingerprint import weights_digest

from ..micro_batches import MicroBatches
from .images import ImageReader
from .settings import MEGA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from PIL import Image

    from stablepref.models.wire import Request, Row
    from stablepref.scorer import Scorer

    from ..micro_batches import Score
    from .metrics import Metrics
    from .settings import ServeSettings


VIEWS: Final = 4
"""Pictures that a request's float pixels and their views may make, for each image of the limit: a
batch is sent whole, even where it is asked for in parts."""


@final
class UnknownModelError(LookupError):
    """A request for a model that is not served."""


@final
class TooManyImagesError(ValueError):
    """A request of more images than the server takes at once."""


@final
@dataclass(frozen=True)
class Result:
    """What came of one image.

    Attributes:
        score: In the model's unit; None if there is none.
        error: Why there is no score, else None.
    """

    score: float | None
    error: str | None

    @classmethod
    def of(cls, score: Score) -> Result:
        """The result that a score, or a reason, stands for."""
        return cls(None, score) if isinstance(score, str) else cls(score, None)


@final
class Served:
    """One scorer of a server, and its queue."""

    def __init__(
        self, name: str, scorer: Scorer, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.name = name
        self.scorer = scorer
        self.fingerprint = weights_digest(scorer)
        self.batches = MicroBatches(
            scorer,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            on_batch=lambda size: metrics.batch(name, size),
        )

    def described(self) -> dict[str, Any]:
        """What clients may know of it."""
        scorer = self.scorer
        return {
            "name": self.name,
            "unit": scorer.unit,
            "preference_scale": scorer.preference_scale,
            "protocol": scorer.protocol,
            "needs_prompt": scorer.needs_prompt,
            "fingerprint": self.fingerprint,
        }


@final
class Service:
    """All scorers of a server, and the threads that decode images for them.

    Args:
        scorers: By the name that clients use.
        settings: The bounds.
        metrics: What is counted.
    """

    def __init__(
        self, scorers: Mapping[str, Scorer], settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.max_pixels = settings.max_megapixels * MEGA
        self.models = {
            name: Served(name, scorer, settings, metrics) for name, scorer in scorers.items()
        }
        self.reader = ImageReader(
            max_pixels=self.max_pixels,
            max_bytes=settings.max_request_mb * MEGA,
            folders=settings.folders,
        )
        self._unfinished: list[Callable[[], Sequence[Awaitable[object]]]] = []
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "images of requests")

    def model(self, name: str | None) -> Served:
        """A model by its name; the first for None.

        Raises:
            UnknownModelError: There is none of this name; the message lists those that there are.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            msg = f"no model {name!r:.100} here; expected one of {', '.join(self.models)}"
            raise UnknownModelError(msg)
        return self.models[name]

    def seconds_to_wait(self) -> int:
        """How long a client had better wait before it asks again, at least a second."""
        return max(1, round(max(one.batches.seconds_to_wait() for one in self.models.values())))

    async def score(
        self, names: Sequence[str | None], images: Sequence[object], prompts: Sequence[object]
    ) -> list[list[Result]]:
        """Score images under their prompts with one or more models; an image is decoded once.

        Args:
            names: Of models; None is the first.
            images: Each as `ImageReader.read` takes it.
            prompts: As many; what is no prompt is its image's error, for models that need one.

        Returns:
            For each model the results, in the order of the images.

        Raises:
            UnknownModelError: There is no such model.
            TooManyImagesError: There are more than a request may have.
            RuntimeError: The server is being stopped.
        """
        self._check_count(len(images))
        models = [self.model(name) for name in names]
        loop = asyncio.get_running_loop()
        pictures = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._read, image) for image in images)
        )
        return list(
            await asyncio.gather(*(self._score_with(one, pictures, prompts) for one in models))
        )

    async def score_packed(self, name: str, body: bytes) -> list[Result]:
        """Score what `stablepref.models.wire.pack` made.

        Raises:
            UnknownModelError: There is no such model.
            TooManyImagesError: There are more than a request may have.
            ValueError: The body is not such a request.
        """
        served = self.model(name)
        loop = asyncio.get_running_loop()
        inputs, prompts = await loop.run_in_executor(self._pool, self._unpacked, served, body)
        return await self._queued(served, inputs, prompts)

    def before_close(self, unfinished: Callable[[], Sequence[Awaitable[object]]]) -> None:
        """Have the work of a protocol that answers later finished before the server ends."""
        self._unfinished.append(unfinished)

    async def close(self) -> None:
        """Finish what was accepted."""
        for unfinished in self._unfinished:
            await asyncio.gather(*unfinished(), return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for served in self.models.values():
            served.batches.close()
        self._pool.shutdown()

    def _read(self, image: object) -> Image.Image | str:
        """The picture, or what is wrong with it."""
        try:
            return self.reader.read(image)
        except UnusableImageError as error:
            return str(error)

    async def _score_with(
        self, served: Served, pictures: Sequence[Image.Image | str], prompts: Sequence[object]
    ) -> list[Result]:
        loop = asyncio.get_running_loop()
        inputs = await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, _exact, served, one, prompt)
                for one, prompt in zip(pictures, prompts, strict=True)
            )
        )
        return await self._queued(served, inputs, [_text(prompt) for prompt in prompts])

    async def _queued(
        self, served: Served, inputs: Sequence[object], prompts: Sequence[str]
    ) -> list[Result]:
        """Results of inputs; those that are reasons keep their place."""
        results = [Result.of(one) if isinstance(one, str) else None for one in inputs]
        good = [place for place, result in enumerate(results) if result is None]
        future = served.batches.submit([inputs[p] for p in good], [prompts[p] for p in good])
        scores: list[Score] = await asyncio.wrap_future(future)
        for place, score in zip(good, scores, strict=True):
            results[place] = Result.of(score)
        done = [result for result in results if result is not None]
        failed = sum(result.error is not None for result in done)
        self.metrics.images(served.name, scored=len(done) - failed, failed=failed)
        return done

    def _unpacked(self, served: Served, body: bytes) -> tuple[list[object], list[str]]:
        """The model's inputs, or reasons, and the prompts of a packed request."""
        request = unpack(body)
        self._check_count(len(request.rows))
        self._check_count(request.views(), VIEWS * self.settings.max_images)
        prompts = [request.prompts[row.prompt] for row in request.rows]
        found: list[object] = [
            _prompt_fault(served, prompt) or self._size_fault(request, row)
            for prompt, row in zip(prompts, request.rows, strict=True)
        ]
        good = [place for place, reason in enumerate(found) if reason is None]
        rows = [request.rows[place] for place in good]
        inputs = prepare(request.only(rows), served.scorer.preprocess, served.scorer.device)
        for place, one in zip(good, inputs, strict=True):
            found[place] = str(one) if isinstance(one, ValueError) else one
        return found, prompts

    def _check_count(self, count: int, most: int | None = None) -> None:
        most = self.settings.max_images if most is None else most
        if count > most:
            msg = f"the request has {count} images; this server takes {most} at once"
            raise TooManyImagesError(msg)

    def _size_fault(self, request: Request, row: Row) -> str | None:
        """That an image of a packed request has too many pixels, or None."""
        if row.kind == PICTURE:
            width, height = request.pictures[row.number].size
        else:
            height, width = request.pixels[row.number].pixels.shape[2:]
        return self.reader.size_fault(width, height)


def load_scorers(settings: ServeSettings) -> dict[str, Scorer]:
    """The scorers of a server by the names that clients use.

    Raises:
        ValueError: As `stablepref.load`.
        UnavailableError: As `stablepref.load`.
    """
    from stablepref.zoo import load  # noqa: PLC0415 (other modules here need no models)

    return {
        name: load(model_name(path), device=settings.device, dtype=settings.dtype)
        for name, path in settings.named_models()
    }


def _exact(served: Served, picture: Image.Image | str, prompt: object) -> object:
    """The model's inputs of a picture, or what is wrong with it or its prompt."""
    if reason := _prompt_fault(served, prompt):
        return reason
    if isinstance(picture, str):
        return picture
    try:
        return served.scorer.preprocess.exact(picture)
    except ValueError as error:
        return str(error)


def _text(prompt: object) -> str:
    """A prompt as the model gets it; empty for none."""
    return prompt if isinstance(prompt, str) else ""


def _prompt_fault(served: Served, prompt: object) -> str | None:
    """What is wrong with a prompt, or None; a model that needs none takes none."""
    given: Any = [prompt]
    try:
        check_prompts(given, needed=served.scorer.needs_prompt)
    except (TypeError, ValueError) as error:
        return str(error).replace("prompt 0 ", "its prompt ", 1)
    return None
