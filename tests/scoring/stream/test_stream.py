"""Streaming: order, laziness, arguments."""

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from stablepref.images.sources import ImageError
from stablepref.models.clip import CLIPScorer
from stablepref.scoring import batching as pipeline


def test_order_and_names_are_kept_at_any_batch_size(scorer: CLIPScorer, files: list[Path]) -> None:
    expected = torch.cat([scorer.score(path, "a cat") for path in files])
    for batch_size in (1, 5, 12, 100):
        items = list(scorer.stream(files, "a cat", batch_size=batch_size))
        assert [item.index for item in items] == list(range(12))
        assert [item.name for item in items] == [str(path) for path in files]
        found = torch.tensor([item.score for item in items])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_generator_is_read_only_a_little_ahead(
    scorer: CLIPScorer, pictures: list[Image.Image]
) -> None:
    read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal read
        while True:
            read += 1
            yield pictures[read % len(pictures)]

    stream = scorer.stream(endless(), "a cat", batch_size=4)
    for _ in range(10):
        next(stream)
    stream.close()
    assert read <= 10 + 4 * 4
    assert not [t for t in threading.enumerate() if t.name.startswith("stablepref-ahead")]


def test_prompts_may_stream_too(scorer: CLIPScorer, pictures: list[Image.Image]) -> None:
    prompts = [f"number {i}" for i in range(12)]
    lazy = scorer.score((p for p in pictures), (p for p in prompts))
    torch.testing.assert_close(lazy, scorer.score(pictures, prompts))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number, 1 or more, got True"),
        ({"batch_size": "4"}, "batch_size must be a whole number"),
        ({"views": -1}, "views"),
        ({"views": 2.5}, "views must be a whole number"),
        ({"views": True}, "views must be a whole number, 0 or more, got True"),
        ({"on_error": "ignore"}, "on_error"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(
    scorer: CLIPScorer, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        scorer.stream(["/none.png"], "a cat", **arguments)


def test_no_images_and_counts_that_differ(scorer: CLIPScorer, pictures: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="no images"):
        scorer.score([], "a cat")
    with pytest.raises(ValueError, match="12 images"):
        scorer.score(pictures, ["a", "b"])


def test_an_image_too_thin_for_the_protocol_is_named(scorer: CLIPScorer) -> None:
    thread = Image.new("RGB", (200_000, 1))
    with pytest.raises(ImageError, match="image 0"):
        scorer.score(thread, "a cat")


def test_decoding_runs_beside_the_model(
    scorer: CLIPScorer, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()
    decode = pipeline.decode

    def watched(source: object) -> object:
        names.add(threading.current_thread().name)
        return decode(source)

    monkeypatch.setattr(pipeline, "decode", watched)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.score(pictures, "a cat")
    assert names
    assert all(name.startswith("stablepref-ahead") for name in names)
