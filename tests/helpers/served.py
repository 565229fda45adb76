"""A server of scorers in this process, for clients of every kind, without a socket."""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from helpers.brightness import Brightness
from stablepref.integrations.serve.app import create_app
from stablepref.integrations.serve.guard import Guard
from stablepref.integrations.serve.settings import PROTOCOLS, ServeSettings
from stablepref.models.remote import RemoteScorer
from stablepref.scorer import Scorer

BASE = "http://127.0.0.1:8000"


def app_of(
    scorers: Mapping[str, Scorer] | None = None,
    **settings: Any,  # noqa: ANN401 (fields of the settings)
) -> Guard:
    """The application of "bright" and "double", if nothing else is given, with all protocols.

    That of latents is there where a `vae` is given.
    """
    scorers = scorers or {"bright": Brightness(), "double": Brightness(2.0)}
    protocols = [one for one in PROTOCOLS if one != "latents" or "vae" in settings]
    settings = {"protocols": tuple(protocols), "max_delay": 0.0} | settings
    return create_app(scorers, ServeSettings(models=tuple(scorers), **settings))


@contextmanager
def served(
    scorers: Mapping[str, Scorer] | None = None,
    **settings: Any,  # noqa: ANN401 (fields of the settings)
) -> Iterator[TestClient]:
    """A client of `app_of`; errors inside the server are answers, as over a socket."""
    app = app_of(scorers, **settings)
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


class Through(httpx2.BaseTransport):
    """Sends what a `RemoteScorer` sends to a test client."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self.client.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx2.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )


def remote(client: TestClient, model: str = "bright") -> RemoteScorer:
    """A scorer of the server behind a test client."""
    return RemoteScorer(f"{BASE}/{model}", transport=Through(client))


def grey(level: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A picture of one level; its brightness is level / 255."""
    return Image.new("RGB", size, (level, level, level))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def b64(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def noisy(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of several sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(30, 90, (count, 2))
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]
