"""A judge behind a scripted endpoint: malformed, slow, biased, gone."""

import base64
import io
import json
import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from helpers.served import grey, noisy
from PIL import Image

import stablepref
from stablepref.images.sources import ImageError
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.judges.judge import Judge, open_judge
from stablepref.integrations.judges.template import bundled_templates, read_template
from stablepref.models.registry import entry_of
from stablepref.weights.hub import UnavailableError

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


def test_ratings_in_words() -> None:
    scorer, endpoint = judge(rating)
    scores = scorer.score([grey(level) for level in (10, 55, 100)], ["a", "b {x}", "c"])
    assert scores.tolist() == pytest.approx([1, 5.5, 10])
    assert scores.dtype == torch.float32
    request = endpoint.requests[0]
    assert request["model"] == "m"
    assert request["temperature"] == 0
    assert [part["type"] for part in request["messages"][0]["content"]] == ["image_url", "text"]
    assert {re.search("Prompt: (.*)", text_of(r))[1] for r in endpoint.requests} == {
        "a",
        "b {x}",
        "c",
    }  # type: ignore[index]
    assert scorer.unit == "rating, 1 to 10"


def test_an_answer_that_cannot_be_read_is_the_error_of_its_image() -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return completion("No idea.") if levels(request)[0] == 20 else rating(request)

    scorer, _ = judge(answer)
    images = [grey(10), grey(20), grey(30)]
    with pytest.warns(UserWarning, match="1 of 3.*No idea"):
        scores = scorer.score(images, "a", on_error="nan")
    assert scores[[0, 2]].tolist() == pytest.approx([1, 3])
    assert math.isnan(scores[1])
    with pytest.raises(ImageError, match=r"image 1.*No idea") as caught:
        scorer.score(images, "a")
    assert caught.value.scores is not None
    assert caught.value.scores.tolist() == pytest.approx([1])
    errors = [one.error for one in scorer.stream(iter(images), "a")]
    assert [error is None for error in errors] == [True, False, True]


@pytest.mark.parametrize("text", ["", "Score: 0", "Score: 11", "Score: NaN"])
def test_never_a_score_out_of_nothing(text: str) -> None:
    scorer, _ = judge(lambda _: completion(text))
    with pytest.raises(ImageError):
        scorer.score(grey(1), "a")


def test_yes_by_log_probabilities() -> None:
    tokens = {"Yes": math.log(0.6), " no": math.log(0.2), "Well": math.log(0.2)}
    scorer, endpoint = judge(lambda _: completion("Yes", tokens), template="yes-no")
    assert scorer.score(grey(1), "a").tolist() == pytest.approx([0.75])
    request = endpoint.requests[0]
    assert (request["max_tokens"], request["logprobs"], request["top_logprobs"]) == (1, True, 20)


def test_an_endpoint_without_log_probabilities() -> None:
    scorer, _ = judge(lambda _: completion("Yes"), template="yes-no")
    with pytest.raises(ImageError, match="no log-probabilities"):
        scorer.score(grey(1), "a")


def test_a_pair_in_both_orders() -> None:
    scorer, endpoint = judge(prefers_brighter, template="pairwise")
    for a, b, preferred in ((9, 5, "a"), (5, 9, "b"), (5, 5, "tie")):
        found = scorer.compare(grey(a), grey(b), "a fox")
        assert found.preferred == preferred
        assert found.spread == 0
        assert found.probability is None
        assert "position bias" not in found.note
    assert sorted(map(levels, endpoint.requests[:2])) == [[5, 9], [9, 5]]
    assert scorer.position_bias.bias == 0
    assert scorer.position_bias.consistent == 3


@pytest.mark.parametrize(("place", "bias"), [("first", 1), ("second", -1)])
def test_a_judge_that_always_prefers_one_place_has_no_preference(place: str, bias: int) -> None:
    scorer, _ = judge(lambda _: completion(f"Winner: {place}"), template="pairwise")
    for a, b in ((1, 2), (2, 1), (200, 3)):
        found = scorer.compare(grey(a), grey(b), "a")
        assert found.preferred == "tie"
        assert found.margin == 0
        assert found.scores == (0.5, 0.5)
        assert found.note.startswith(f"position bias: it prefers whichever image is shown {place}")
    assert scorer.position_bias.bias == bias
    assert scorer.position_bias.consistent == 0
    ranked = scorer.rank([grey(level) for level in (1, 2, 3)], "a")
    assert [one.score for one in ranked] == [0.5] * 3


def test_a_preference_in_one_order_only_is_a_tie() -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return completion("Winner: first" if levels(request)[0] == 9 else "Winner: tie")

    scorer, _ = judge(answer, template="pairwise")
    found = scorer.compare(grey(9), grey(5), "a")
    assert found.preferred == "tie"
    assert found.margin == pytest.approx(0.5)
    assert found.spread == pytest.approx(0.5)


def test_ranks_by_pairs() -> None:
    scorer, endpoint = judge(prefers_brighter, template="pairwise")
    ranked = scorer.rank([grey(level) for level in (50, 200, 100, 50)], "a")
    assert [one.index for one in ranked] == [1, 2, 0, 3]
    assert [one.score for one in ranked] == pytest.approx([1, 2 / 3, 1 / 6, 1 / 6])
    assert scorer.usage.requests + scorer.usage.from_cache == 12
    assert scorer.usage.requests == len(endpoint.requests)


def test_a_judge_of_pairs_gives_no_score_to_one() -> None:
    scorer, _ = judge(prefers_brighter, template="pairwise")
    with pytest.raises(TypeError, match="compares two images"):
        scorer.score(grey(1), "a")
    with pytest.raises(ValueError, match="got 3 images"):
        scorer.compare([grey(1), grey(2)], grey(3), "a")


def test_an_unreadable_choice_is_an_error() -> None:
    scorer, _ = judge(lambda _: completion("Both are nice."), template="pairwise")
    with pytest.raises(ImageError, match="Both are nice"):
        scorer.compare(grey(1), grey(2), "a")
    assert scorer.position_bias.pairs == 0


def test_questions_are_asked_together() -> None:
    def slow(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05)
        return rating(request)

    scorer, endpoint = judge(slow, concurrency=4)
    images = [grey(level) for level in range(10, 22)]
    assert scorer.score(images, "a").tolist() == pytest.approx([x / 10 for x in range(10, 22)])
    assert endpoint.most == 4


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


def test_tokens_and_cost_are_counted() -> None:
    scorer, _ = judge(rating)
    scorer.score([grey(20), grey(30), grey(20)], "a", batch_size=1)
    usage = scorer.usage
    assert (usage.requests, usage.from_cache) == (2, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (2000, 20)
    assert usage.cost(prompt_price=2, completion_price=8) == pytest.approx(0.00416)


def test_in_an_ensemble() -> None:
    scorer, _ = judge(rating)
    both = Ensemble([scorer], weights=[2.0])
    assert both.score(grey(40), "a").tolist() == pytest.approx([8])


TEMPLATE = """
mode = "rubric"
answer = "unified-point"
lowest = 1
highest = 5
system = "You judge."
image_format = "jpeg"
text = '''{"json": true} {prompt}'''
[options.chat_template_kwargs]
enable_thinking = false
"""


def test_a_template_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEMPLATE)
    text = "Alignment Score: 2\nCoherence Score: 3\nStyle Score: 4"
    scorer, endpoint = judge(lambda _: completion(text), template=str(path))
    assert scorer.score(grey(1), "a {prompt} b").tolist() == [3]
    request = endpoint.requests[0]
    assert request["messages"][0] == {"role": "system", "content": "You judge."}
    assert text_of(request) == '{"json": true} a {prompt} b'
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    assert shown(request)[0].format == "JPEG"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"rubric"', '"other"', "mode = 'other'"),
        ('"unified-point"', '"winner"', "answer = 'winner'"),
        ("{prompt}", "", "no {prompt}"),
        ("highest = 5", "highest = 1", "below highest"),
        ('"jpeg"', '"gif"', "image_format"),
        ("system", "sistem", "sistem"),
        ("mode", "mode =", "cannot be used"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEMPLATE.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(words)):
        read_template(str(path))


def test_a_template_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no template file .*pairwise, rubric, yes-no"):
        read_template("nowhere.toml")


def test_all_bundled_templates_can_be_used() -> None:
    assert [read_template(name).mode for name in bundled_templates()] == bundled_templates()


def opened(name: str) -> Judge:
    return open_judge(entry_of(name), ())


def test_names(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    scorer = opened(
        f"judge:org/model@v2@http://localhost:8000?template=yes-no&concurrency=3&cache={cache}"
    )
    assert scorer.name == "judge:org/model@v2"
    assert scorer.unit == "probability of yes"
    assert scorer.concurrency == 3
    assert cache.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("judge:model", "judge:MODEL@URL"),
        ("judge:@http://localhost", "judge:MODEL@URL"),
        ("judge:m@http://localhost?retries=x&cache=none", "not a number"),
        ("judge:m@http://localhost?colour=x&cache=none", "no option 'colour'"),
        ("judge:m@http://localhost?concurrency=0&cache=none", "concurrency=0"),
        ("judge:m@http://localhost?template=none&cache=none", "no template file"),
    ],
)
def test_names_that_mean_nothing(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opened(name)


def test_load_takes_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path))
    stablepref.load.cache_clear()
    scorer = stablepref.load("judge:m@http://127.0.0.1:1", device="cpu")
    assert isinstance(scorer, Judge)
    assert (tmp_path / "judges" / "answers.sqlite").exists()
    stablepref.load.cache_clear()


def test_a_judge_has_no_gradient() -> None:
    scorer, _ = judge(rating)
    with pytest.raises(TypeError, match="asked in words, without gradient"):
        scorer(torch.rand(1, 3, 4, 4, requires_grad=True), ["a"])
    assert scorer(torch.full((1, 3, 4, 4), 50 / 255), ["a"]).tolist() == pytest.approx([5])


def test_views_are_asked_about_one_by_one() -> None:
    scorer, endpoint = judge(lambda request: completion(f"Score: {shown(request)[0].width / 10}"))
    (found,) = scorer.stream(noisy(1), "left", views=2)
    widths = [shown(request)[0].width / 10 for request in endpoint.requests]
    assert sorted(found.view_scores) == pytest.approx(sorted(widths))
    assert len(widths) == 3
