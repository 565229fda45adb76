"""Many callers, common batches: who gets what, and who waits for whom."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from helpers.served import noisy
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.integrations.micro_batches import MicroBatches
from stablepref.models.function import FunctionScorer
from stablepref.scoring.contract import FailedInputsError


def widths(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [float(image.width) for image in images]


def queue(function: Any = widths, **options: Any) -> MicroBatches:  # noqa: ANN401
    return MicroBatches(FunctionScorer(function, name="f", unit="1"), **options)


def wide(*sizes: int) -> list[Image.Image]:
    return [Image.new("RGB", (size, 1)) for size in sizes]


def test_everyone_gets_the_scores_of_their_own_images() -> None:
    sizes: list[int] = []
    batches = queue(max_batch=8, max_delay=0.01, on_batch=sizes.append)
    asked = [range(1 + 10 * row, 1 + 10 * row + row % 4) for row in range(60)]

    def ask(own: range) -> list[object]:
        return list(batches.submit(wide(*own), ["a"] * len(own)).result(20))

    with ThreadPoolExecutor(30) as pool:
        for own, found in zip(asked, pool.map(ask, asked), strict=True):
            assert found == [float(size) for size in own]
    batches.close()
    assert sum(sizes) == sum(map(len, asked))
    assert max(sizes) <= 8
    assert len(sizes) < 60


def test_callers_meet_while_a_batch_is_computed() -> None:
    """The first is alone; those who come while it is computed are one batch."""
    sizes: list[int] = []
    go = threading.Event()

    def slow(images: list[Image.Image], prompts: list[str]) -> list[float]:
        go.wait(20)
        return widths(images, prompts)

    batches = queue(slow, max_delay=0.0, on_batch=sizes.append)
    first = batches.submit(wide(1), ["a"])
    while not sizes:
        time.sleep(0.001)
    rest = [batches.submit(wide(row), ["a"]) for row in range(2, 7)]
    assert batches.waiting == 5
    go.set()
    assert [one.result(20) for one in (first, *rest)] == [[float(row)] for row in range(1, 7)]
    assert sizes == [1, 5]
    batches.close()


def test_an_image_waits_no_longer_than_max_delay() -> None:
    batches = queue(max_batch=100, max_delay=0.05)
    assert batches.submit(wide(3), ["a"]).result(20) == [3.0]
    batches.close()


def test_a_full_batch_does_not_wait() -> None:
    batches = queue(max_batch=2, max_delay=1e6)
    two = batches.submit(wide(3), ["a"]), batches.submit(wide(4), ["a"])
    assert [one.result(20) for one in two] == [[3.0], [4.0]]
    batches.close()


@pytest.mark.parametrize("count", [1, 5, 16])
def test_a_caller_alone_gets_the_scorers_own_scores_to_the_last_bit(count: int) -> None:
    scorer = tiny_clip()
    images = noisy(count)
    prompts = [f"a fox {row % 3}" for row in range(count)]
    inputs = [scorer.preprocess.exact(image) for image in images]
    batches = MicroBatches(scorer)
    found = batches.submit(inputs, prompts).result(60)
    batches.close()
    assert torch.equal(torch.tensor(found), scorer.score(images, prompts))


def test_no_caller_fails_for_anothers_image() -> None:
    def picky(images: list[Image.Image], prompts: list[str]) -> list[float]:
        if any(image.width == 13 for image in images):
            raise RuntimeError("no thirteen\nsecret")
        return [float("nan") if image.width == 7 else float(image.width) for image in images]

    go = threading.Event()

    class Gated(FunctionScorer):  # type: ignore[misc] # final; a pause before the first batch
        def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
            go.wait(20)
            return super().score_inputs(inputs, prompts)

    batches = MicroBatches(Gated(picky, name="f", unit="1"))
    asked = [batches.submit(wide(*own), ["a"] * len(own)) for own in ((1, 2), (13,), (3, 13, 7))]
    go.set()
    first, second, third = (one.result(20) for one in asked)
    batches.close()
    assert first == [1.0, 2.0]
    assert "no thirteen" in str(second[0])
    assert "\n" not in str(second[0])
    assert third[0] == 3.0
    assert "no thirteen" in str(third[1])
    assert "nan" in str(third[2])


def test_reasons_of_the_scorer_are_kept() -> None:
    def score(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return widths(images, prompts)

    calls = []

    class Rejecting(FunctionScorer):  # type: ignore[misc] # final
        def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
            calls.append(len(inputs))
            bad = {row: "it is odd" for row, one in enumerate(inputs) if one.width % 2}
            if bad:
                raise FailedInputsError(bad)
            return super().score_inputs(inputs, prompts)

    batches = MicroBatches(Rejecting(score, name="f", unit="1"))
    assert batches.submit(wide(2, 3, 4, 5), ["a"] * 4).result(20) == [2.0, "it is odd"] * 1 + [
        4.0,
        "it is odd",
    ]
    batches.close()
    assert calls == [4, 2]


def test_inputs_go_where_the_model_is() -> None:
    """Exact inputs are made on the CPU, wherever the weights are."""

    class Elsewhere(FunctionScorer):  # type: ignore[misc] # final
        @property
        def device(self) -> torch.device:
            return torch.device("meta")

        def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
            assert {one.device.type for one in inputs} == {"meta"}
            return torch.arange(len(inputs)).float()

    batches = MicroBatches(Elsewhere(widths, name="f", unit="1"))
    assert batches.submit([torch.zeros(3), torch.zeros(3)], ["a", "b"]).result(20) == [0.0, 1.0]
    batches.close()


def test_closing_finishes_what_was_asked_for_and_takes_no_more() -> None:
    def slow(images: list[Image.Image], prompts: list[str]) -> list[float]:
        time.sleep(0.05)
        return widths(images, prompts)

    batches = queue(slow, max_batch=1)
    asked = [batches.submit(wide(row), ["a"]) for row in range(1, 6)]
    batches.close()
    assert [one.result(0) for one in asked] == [[float(row)] for row in range(1, 6)]
    with pytest.raises(RuntimeError, match="closed"):
        batches.submit(wide(1), ["a"])


def test_a_caller_who_left_disturbs_nobody() -> None:
    batches = queue(max_delay=0.2, max_batch=2)
    left = batches.submit(wide(1), ["a"])
    assert left.cancel()
    assert batches.submit(wide(2), ["a"]).result(20) == [2.0]
    batches.close()


def test_nothing_asked_is_nothing_scored() -> None:
    batches = queue()
    assert batches.submit([], []).result(0) == []
    batches.close()


@pytest.mark.parametrize(
    "option", [{"max_delay": -1.0}, {"max_delay": float("nan")}, {"max_batch": 0}]
)
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option)).replace("max_batch", "batch_size")):
        queue(**option)
