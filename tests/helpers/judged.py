"""A judge behind a scripted endpoint, which the real client of openai asks."""

import base64
import io
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import httpx2
from PIL import Image

from stablepref.integrations.judges.judge import Judge

URL = "http://127.0.0.1:1/v1"


def shown(request: dict[str, Any]) -> list[Image.Image]:
    """The images of a request, decoded."""
    urls = [
        part["image_url"]["url"]
        for part in request["messages"][-1]["content"]
        if part["type"] == "image_url"
    ]
    heads, data = zip(*(url.split(",", 1) for url in urls), strict=True)
    assert all(re.fullmatch(r"data:image/(png|jpeg);base64", head) for head in heads)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in data]


def levels(request: dict[str, Any]) -> list[int]:
    return [image.getpixel((0, 0))[0] for image in shown(request)]


def text_of(request: dict[str, Any]) -> str:
    (text,) = (p["text"] for p in request["messages"][-1]["content"] if p["type"] == "text")
    return str(text)


def completion(text: str, logprobs: dict[str, float] | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    if logprobs is not None:
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in logprobs.items()]
        choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
    }


Answer = Callable[[dict[str, Any]], dict[str, Any] | httpx2.Response | Exception]


class Endpoint(httpx2.BaseTransport):
    """Answers each request by a function, and remembers it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.busy = self.most = 0
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert str(request.url) == f"{URL}/chat/completions"
        asked = json.loads(request.read())
        with self._lock:
            self.requests.append(asked)
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            found = self.answer(asked)
        finally:
            with self._lock:
                self.busy -= 1
        if isinstance(found, Exception):
            raise found
        if isinstance(found, httpx2.Response):
            return found
        return httpx2.Response(200, json=found)


def judge(
    answer: Answer,
    **options: Any,  # noqa: ANN401 (arguments of the judge)
) -> tuple[Judge, Endpoint]:
    endpoint = Endpoint(answer)
    options = {"cache": None, "retries": 0} | options
    client = httpx2.Client(transport=endpoint)
    return Judge("m", URL, http_client=client, **options), endpoint


def rating(request: dict[str, Any]) -> dict[str, Any]:
    """The level of the image, in tenths."""
    return completion(f"It is grey.\nScore: {levels(request)[0] / 10}")


def prefers_brighter(request: dict[str, Any]) -> dict[str, Any]:
    first, second = levels(request)
    return completion(
        f"Winner: {'tie' if first == second else 'first' if first > second else 'second'}"
    )
