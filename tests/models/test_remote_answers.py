"""What a scorer on a server does when it does not answer, or not as it should."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import safetensors.torch
import torch
from helpers.served import BASE, grey

from stablepref.models.remote import RemoteScorer
from stablepref.models.wire import unpack
from stablepref.scoring.contract import FailedInputsError
from stablepref.weights.hub import UnavailableError


class Scripted(httpx2.BaseTransport):
    """A server that answers from a list, and then with the last of it."""

    def __init__(self, *answers: Callable[[httpx2.Request], httpx2.Response] | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        if request.method == "GET":
            return httpx2.Response(200, json=DESCRIBED)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request)


DESCRIBED = {
    "models": [
        {
            "name": "m",
            "unit": "u",
            "preference_scale": None,
            "protocol": "clip",
            "needs_prompt": True,
            "fingerprint": "0",
        }
    ],
    "limits": {"max_request_bytes": 10_000, "max_pixels": 10**6},
}


def says(status: int, content: object, **headers: str) -> Callable[..., httpx2.Response]:
    return lambda _: httpx2.Response(status, json=content, headers=headers)


def good(request: httpx2.Request) -> httpx2.Response:
    rows = unpack(request.content).rows
    return httpx2.Response(200, json={"scores": [1.5] * len(rows), "errors": [None] * len(rows)})


def scripted(*answers: Any, **options: Any) -> tuple[RemoteScorer, Scripted]:  # noqa: ANN401
    transport = Scripted(*answers)
    return RemoteScorer(f"{BASE}/m", transport=transport, **options), transport


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("stablepref.models.remote.time.sleep", found.append)
    return found


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
        says(500, {"detail": "x"}),
        says(502, {}),
        says(503, {}, **{"Retry-After": "7"}),
        says(429, {}),
        says(408, {}),
        lambda _: httpx2.Response(200, content=b"not json"),
    ],
    ids=range(9),
)
def test_what_may_pass_is_tried_again(failure: Any, pauses: list[float]) -> None:  # noqa: ANN401
    far, transport = scripted(failure, failure, good)
    assert far.score(grey(1), "a").tolist() == [1.5]
    assert len(transport.requests) == 3
    assert len({request.content for request in transport.requests}) == 1
    assert len(pauses) == 2


def test_a_busy_server_says_when_to_come_back(pauses: list[float]) -> None:
    far, _ = scripted(*[says(503, {}, **{"Retry-After": "7"})] * 20, good)
    assert far.score(grey(1), "a").tolist() == [1.5]
    assert all(3.5 <= pause <= 10.5 for pause in pauses)
    assert len(pauses) == 20


def test_a_busy_server_is_not_waited_for_forever(pauses: list[float]) -> None:
    far, _ = scripted(says(503, {"detail": "256 requests wait"}), patience=0.0)
    with pytest.raises(UnavailableError, match="256 requests wait"):
        far.score(grey(1), "a")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_other_refusals_end_at_once_with_the_servers_words(
    status: int, pauses: list[float]
) -> None:
    far, transport = scripted(says(status, {"detail": "the server's own words"}))
    with pytest.raises(UnavailableError, match=rf"{status}: the server's own words"):
        far.score(grey(1), "a")
    assert len(transport.requests) == 1
    assert not pauses


def test_a_server_that_is_gone_is_given_up(pauses: list[float]) -> None:
    far, transport = scripted(httpx2.ConnectError("connection refused"), retries=2)
    with pytest.raises(UnavailableError, match="connection refused after 3 tries"):
        far.score(grey(1), "a")
    assert len(transport.requests) == 3


def test_too_few_scores_are_no_answer() -> None:
    far, _ = scripted(says(200, {"scores": [1.0], "errors": [None]}))
    with pytest.raises(UnavailableError, match="1 scores for 2 images"):
        far.score([grey(1), grey(2)], "a")


def test_a_batch_is_split_by_the_servers_largest_request() -> None:
    far, transport = scripted(good)
    images = [grey(level, (30, 20)) for level in range(20)]  # 1800 bytes each, 9000 are allowed
    assert far.score(images, "a", batch_size=20).tolist() == [1.5] * 20
    counts = [len(unpack(request.content).rows) for request in transport.requests]
    assert counts == [5, 5, 5, 5]
    assert all(len(request.content) <= 10_000 for request in transport.requests)


def test_an_image_larger_than_that_is_sent_and_refused_by_the_server() -> None:
    far, _ = scripted(says(413, {"detail": "too large"}))
    with pytest.raises(UnavailableError, match="too large"):
        far.score(grey(1, (100, 100)), "a")


def test_reasons_of_the_server(pauses: list[float]) -> None:
    far, _ = scripted(says(200, {"scores": [1.0, None], "errors": [None, "it is odd"]}))
    with pytest.raises(FailedInputsError, match="image 1 of its batch: it is odd"):
        far.score_inputs([grey(1), grey(2)], ["a", "b"])


def test_an_image_is_sent_once_for_all_its_views() -> None:
    far, transport = scripted(good)
    far.score(grey(3, (20, 20)), "a", views=4)
    sent = safetensors.torch.load(transport.requests[1].content)
    assert sent["pixels.0"].shape == (1, 3, 20, 20)
    assert sent["pixels.0"].dtype == torch.uint8
    assert sent["boxes.0"].shape == (1, 4, 4)


def test_copies_and_pickles(far: RemoteScorer) -> None:
    scorer, _ = scripted(good)
    scorer.score(grey(1), "a")
    for made in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert made.score(grey(1), "a").tolist() == [1.5]


def test_something_else_than_a_server_of_stablepref() -> None:
    class Other(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, json={"hello": "world"})

    with pytest.raises(UnavailableError, match="not a server of stablepref"):
        RemoteScorer(BASE, transport=Other())
