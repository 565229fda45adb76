"""What a judge does when its endpoint fails or is stopped."""

import math
from pathlib import Path
from typing import Any

import httpx2
import pytest
from helpers.judged import (
    completion,
    judge,
    levels,
    rating,
)
from helpers.served import grey

from stablepref.images.sources import ImageError
from stablepref.weights.hub import UnavailableError

SOON = {"retry-after-ms": "1"}


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again(status: int) -> None:
    failures = iter([status, status])

    def answer(request: dict[str, Any]) -> dict[str, Any] | httpx2.Response:
        status = next(failures, None)
        if status is None:
            return rating(request)
        return httpx2.Response(status, json={"error": {"message": "later"}}, headers=SOON)

    scorer, endpoint = judge(answer, retries=3)
    assert scorer.score(grey(30), "a").tolist() == pytest.approx([3])
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(400, json={"error": {"message": "too many pixels"}}), "too many pixels"),
        (httpx2.Response(500, json={"error": {"message": "out of memory"}}), "out of memory"),
        (httpx2.ReadTimeout("slow"), "no answer in time"),
    ],
    ids=["400", "500", "slow"],
)
def test_a_failure_of_one_image_is_its_error(answer: Any, words: str) -> None:  # noqa: ANN401
    scorer, _ = judge(lambda request: answer if levels(request)[0] == 20 else rating(request))
    with pytest.warns(UserWarning, match=words):
        scores = scorer.score([grey(10), grey(20)], "a", on_error="nan")
    assert scores.tolist() == pytest.approx([1, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(401, json={"error": {"message": "bad key"}}), "401.*bad key"),
        (httpx2.Response(404, json={"error": {"message": "no model"}}), "404.*no model.*'m'"),
        (httpx2.Response(429, json={"error": {"message": "quota"}}, headers=SOON), "429.*quota"),
        (httpx2.ConnectError("refused"), "cannot be reached"),
    ],
    ids=["401", "404", "429", "gone"],
)
def test_an_endpoint_that_refuses_all_ends_the_work(answer: Any, words: str) -> None:  # noqa: ANN401
    scorer, _ = judge(lambda _: answer)
    with pytest.raises(UnavailableError, match=words):
        scorer.score(grey(1), "a", on_error="nan")


def test_answers_are_kept_and_work_resumes(tmp_path: Path) -> None:
    """The endpoint dies after three answers; the next run asks only for the rest."""
    left = iter([True] * 3)

    def dying(request: dict[str, Any]) -> Any:  # noqa: ANN401
        return rating(request) if next(left, False) else httpx2.ConnectError("gone")

    images = [grey(level) for level in range(10, 18)]
    first, _ = judge(dying, cache=tmp_path / "a" / "answers.sqlite", concurrency=1)
    with pytest.raises(UnavailableError):
        first.score(images, "a")
    second, endpoint = judge(rating, cache=tmp_path / "a" / "answers.sqlite")
    assert second.score(images, "a").tolist() == pytest.approx([x / 10 for x in range(10, 18)])
    assert len(endpoint.requests) == 5
    assert second.usage.from_cache == 3
    # Another prompt, template or model is another question.
    second.score(images[:1], "b")
    assert len(endpoint.requests) == 6


def test_unreadable_answers_are_not_kept(tmp_path: Path) -> None:
    answers = iter(["No idea.", "Score: 5"])
    scorer, _ = judge(lambda _: completion(next(answers)), cache=tmp_path / "answers.sqlite")
    with pytest.raises(ImageError):
        scorer.score(grey(1), "a")
    assert scorer.score(grey(1), "a").tolist() == [5]
