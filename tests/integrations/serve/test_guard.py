"""Strangers, floods and failures: what a server refuses, and what it never says."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Sequence

import httpx2
import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import BASE, app_of, b64, grey, served
from PIL import Image

from stablepref.integrations.serve.guard import Guard
from stablepref.models.function import FunctionScorer

ASKED = {"images": [b64(grey(51))], "prompts": "a"}
TOKEN = "a long secret"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer " + TOKEN + "x", 401),
        ("Bearer", 401),
        (TOKEN, 401),
        (basic("", "wrong"), 401),
        ("Basic !!!", 401),
        ("Bearer " + TOKEN, 200),
        (basic("", TOKEN), 200),
        (basic(TOKEN, ""), 200),
    ],
)
def test_the_token(given: str | None, status: int) -> None:
    headers = {} if given is None else {"Authorization": given}
    with served(token=TOKEN) as client:
        for method, path in (("POST", "/v1/score"), ("GET", "/models"), ("GET", "/metrics")):
            body = ASKED if method == "POST" else None
            answer = client.request(method, path, json=body, headers=headers)
            assert answer.status_code == status, path
            assert TOKEN not in answer.text
        health = client.get("/health", headers=headers)
        assert health.status_code == 200
        assert bool(health.json()["rewards"]) == (status == 200)


def test_without_a_token_only_this_machine_is_let_in() -> None:
    """A page in a browser would send its own name as the host."""
    with served() as client:
        assert client.get("/models", headers={"Host": "evil.example:8000"}).status_code == 401
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert client.get("/models", headers={"Host": host}).status_code == 200


def test_a_request_that_says_it_is_too_large() -> None:
    with served(max_request_mb=0.01) as client:
        answer = client.post("/v1/score", content=b" " * 10_001)
        assert answer.status_code == 413
        assert "10000" in answer.json()["detail"]
        assert client.post("/v1/score", json=ASKED).status_code == 200


def test_a_request_that_does_not_say_how_large_it_is() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    async def post() -> httpx2.Response:
        async with client_of(app_of(max_request_mb=0.01)) as client:
            return await client.post("/v1/score", content=endless())

    assert asyncio.run(post()).status_code == 413
    assert sent < 20_000


def test_a_slow_request() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async def post() -> httpx2.Response:
        async with client_of(app_of(body_timeout=0.2)) as client:
            return await client.post("/v1/score", content=slow())

    started = time.monotonic()
    assert asyncio.run(post()).status_code == 408
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("size", [(9000, 9000), (1, 4_000_001)])
def test_an_image_with_too_many_pixels_is_not_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = b64(Image.new("1", size))
    monkeypatch.setattr("stablepref.integrations.serve.images.open_bytes", None)
    with served(max_megapixels=4) as client:
        answer = client.post("/v1/score", json={"images": [bomb], "prompts": "a"}).json()
    assert answer["scores"] == [None]
    assert "4000000 pixels" in answer["errors"][0]


def test_more_requests_than_may_wait_are_told_when_to_come_back() -> None:
    gate = asyncio.Event()

    def slow(images: Sequence[object], prompts: Sequence[str]) -> list[float]:
        time.sleep(0.3)
        return [1.0] * len(images)

    async def post() -> list[httpx2.Response]:
        app = app_of({"slow": FunctionScorer(slow, name="slow", unit="1")}, max_waiting=3)
        async with client_of(app) as client:
            answers = await asyncio.gather(
                *(client.post("/v1/score", json=ASKED) for _ in range(8))
            )
            gate.set()
            return [*answers, await client.post("/v1/score", json=ASKED)]

    *answers, last = asyncio.run(post())
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert last.status_code == 200


def test_bytes_of_all_requests_are_bounded() -> None:
    with served(max_total_mb=0.0001) as client:
        assert client.post("/v1/score", json=ASKED).status_code == 503


def test_no_traceback_leaves_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    with served() as client:
        monkeypatch.setattr("stablepref.integrations.serve.service.Service.score", broken)
        with caplog.at_level(logging.ERROR):
            answer = client.post("/v1/score", json=ASKED)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the server failed; its log says why"}
    assert "secret of the inside" in caplog.text


def test_a_model_that_fails_says_so_in_one_line() -> None:
    def broken(images: Sequence[object], prompts: Sequence[str]) -> list[float]:
        raise ZeroDivisionError("first line\nsecond line")

    with served({"broken": FunctionScorer(broken, name="broken", unit="1")}) as client:
        answer = client.post("/v1/score", json=ASKED).json()
    assert answer["scores"] == [None]
    assert "Traceback" not in answer["errors"][0]
    assert "\n" not in answer["errors"][0]
    assert "ZeroDivisionError" in answer["errors"][0]


def client_of(app: Guard) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=BASE, timeout=60)


def test_a_thousand_requests_with_one_in_a_hundred_malformed() -> None:
    """From many clients at once: every answer is right, or an error in its place."""
    levels = torch.randint(0, 256, (1000,), generator=torch.Generator().manual_seed(0)).tolist()

    async def post() -> list[httpx2.Response]:
        async with client_of(app_of(max_waiting=2000, max_total_mb=100_000)) as client:

            async def one(row: int) -> httpx2.Response:
                image = "broken" if row % 100 == 7 else b64(grey(levels[row], (4, 4)))
                return await client.post("/v1/score", json={"images": [image], "prompts": "a"})

            return await asyncio.gather(*map(one, range(1000)))

    for row, answer in enumerate(asyncio.run(post())):
        found = answer.json()
        if row % 100 == 7:
            assert found["scores"] == [None]
            assert found["errors"][0] is not None
        else:
            assert found["scores"] == pytest.approx([levels[row] / 255], abs=1e-6)


def test_brightness_is_what_the_tests_take_it_for() -> None:
    assert Brightness().score(grey(51), "a").item() == pytest.approx(0.2, abs=1e-6)
