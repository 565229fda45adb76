"""What a judge makes of the answers of a scripted endpoint: ratings, choices, biases, costs."""

import math
import re
import time
from typing import Any

import pytest
import torch
from helpers.judged import completion, judge, levels, prefers_brighter, rating, shown, text_of
from helpers.served import grey, noisy

from stablepref.images.sources import ImageError
from stablepref.integrations.ensemble import Ensemble


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
