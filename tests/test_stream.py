"""Streaming: order, laziness, bad images, out-of-memory, views."""

import math
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_clip

from stablepref import pipeline
from stablepref.augment import weak_view_boxes
from stablepref.clip import CLIPScorer
from stablepref.images import ImageError
from stablepref.stream import VIEW_SEED


@pytest.fixture(scope="module")
def scorer() -> CLIPScorer:
    return tiny_clip()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (60 + i, 90 - i, 3), dtype=np.uint8))
        for i in range(12)
    ]


@pytest.fixture
def files(pictures: list[Image.Image], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:02}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths


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
    assert not [t for t in threading.enumerate() if t.name.startswith("stablepref-decode")]


def test_prompts_may_stream_too(scorer: CLIPScorer, pictures: list[Image.Image]) -> None:
    prompts = [f"number {i}" for i in range(12)]
    lazy = scorer.score((p for p in pictures), (p for p in prompts))
    torch.testing.assert_close(lazy, scorer.score(pictures, prompts))


def test_streams_with_more_images_than_prompts_say_so_after_scoring(
    scorer: CLIPScorer, pictures: list[Image.Image]
) -> None:
    stream = scorer.stream(iter(pictures), iter(["a", "b", "c"]))
    assert [next(stream).prompt for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="prompts ended after 3"):
        next(stream)


def test_one_bad_image_in_a_list_raises_with_the_scores_before_it(
    scorer: CLIPScorer, files: list[Path]
) -> None:
    files[7].write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"07\.png") as caught:
        scorer.score(files, "a cat", batch_size=5)
    assert caught.value.index == 7
    assert caught.value.scores is not None
    torch.testing.assert_close(caught.value.scores, scorer.score(files[:7], "a cat"))


def test_one_bad_image_in_a_stream_is_nan_and_told(scorer: CLIPScorer, files: list[Path]) -> None:
    good = scorer.score(files, "a cat")
    files[0].write_bytes(b"")
    files[7].unlink()
    with pytest.warns(UserWarning, match=r"2 of 12 images.*00\.png"):
        scores = scorer.score(iter(files), "a cat", batch_size=5)
    assert scores.isnan().nonzero().flatten().tolist() == [0, 7]
    torch.testing.assert_close(scores[1:7], good[1:7], rtol=1e-5, atol=1e-5)
    items = list(scorer.stream(files, "a cat", on_error="nan"))
    assert items[7].error is not None
    assert "07.png" in items[7].error
    assert math.isnan(items[7].score)


def test_a_stream_of_only_bad_images(scorer: CLIPScorer, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="3 of 3"):
        scores = scorer.score([tmp_path / "none.png"] * 3, "a cat", on_error="nan")
    assert scores.isnan().all()


def test_matrix_with_a_bad_image(scorer: CLIPScorer, files: list[Path]) -> None:
    files[4].write_bytes(b"x")
    with pytest.raises(ImageError) as caught:
        scorer.score_matrix(files, ["a cat", "a dog"])
    assert caught.value.scores is not None
    assert caught.value.scores.shape == (4, 2)
    matrix = scorer.score_matrix(files, ["a cat", "a dog"], on_error="nan")
    assert matrix.isnan().any(dim=1).nonzero().flatten().tolist() == [4]


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tiny_clip()
    expected = scorer.score(pictures, "a cat")
    sizes: list[int] = []
    encode = scorer.encode_inputs

    def limited(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return encode(inputs)

    monkeypatch.setattr(scorer, "encode_inputs", limited)
    torch.testing.assert_close(
        scorer.score(pictures, "a cat", batch_size=12), expected, rtol=1e-5, atol=1e-5
    )
    assert sizes == [12, 6, 3, 3, 3, 3]


def test_out_of_memory_with_one_image_is_raised(
    pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tiny_clip()

    def never(inputs: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(scorer, "encode_inputs", never)
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score(pictures, "a cat")


def test_other_errors_are_not_taken_for_out_of_memory(
    pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tiny_clip()

    def broken(inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(scorer, "encode_inputs", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        scorer.score(pictures, "a cat")


def test_views_average_the_image_and_its_crops(
    scorer: CLIPScorer, pictures: list[Image.Image]
) -> None:
    """Against a loop that crops each view by hand through the scorer's own float form."""
    boxes, flips = weak_view_boxes([0], 3, seed=VIEW_SEED, hflip=True)
    for item, picture in zip(scorer.stream(pictures, "a cat", views=3), pictures, strict=True):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            crops = scorer.preprocess(pixels[None], boxes, flips)[0]
            prompt = scorer.encode_prompts(["a cat"])
            views = [scorer.match(scorer.encode_inputs(c[None]), prompt).item() for c in crops]
            original = scorer.match(
                scorer.encode_inputs(scorer.preprocess.exact(picture)[None]), prompt
            ).item()
        assert item.view_scores == pytest.approx([original, *views], rel=1e-4, abs=1e-4)
        assert item.score == pytest.approx(sum([original, *views]) / 4, rel=1e-4, abs=1e-4)
        assert item.spread == pytest.approx(
            max([original, *views]) - min([original, *views]), abs=1e-4
        )
        assert item.spread > 0


def test_views_of_an_image_do_not_depend_on_its_neighbours(
    scorer: CLIPScorer, pictures: list[Image.Image]
) -> None:
    together = scorer.score(pictures, "a cat", views=4)
    alone = torch.cat([scorer.score(p, "a cat", views=4) for p in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_prompts_that_name_a_side_get_no_mirrored_views(
    scorer: CLIPScorer, monkeypatch: pytest.MonkeyPatch, pictures: list[Image.Image]
) -> None:
    seen: list[torch.Tensor] = []
    forward = scorer.preprocess.forward

    def watched(pixels: object, boxes: object = None, hflip: torch.Tensor | None = None) -> object:
        if hflip is not None:
            seen.append(hflip)
        return forward(pixels, boxes, hflip)

    monkeypatch.setattr(scorer.preprocess, "forward", watched)
    scorer.score(pictures[:2], ["a cat left of a dog", "a cat and a dog"], views=8, batch_size=18)
    (flips,) = seen
    assert not flips[0].any()
    assert flips[1].any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"batch_size": "4"}, "batch_size must be a whole number"),
        ({"views": -1}, "views"),
        ({"views": 2.5}, "views must be a whole number"),
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
    assert all(name.startswith("stablepref-decode") for name in names)


def test_pictures_and_float_pixels_of_many_sizes_mix_in_one_batch(
    scorer: CLIPScorer, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = [
        torch.rand(3, *size, generator=torch.Generator().manual_seed(i))
        for i, size in enumerate([(70, 90), (64, 64), (70, 90)])
    ]
    mixed = [pictures[0], floats[0], floats[1], pictures[1], floats[2]]
    alone = torch.cat([scorer.score(image, "a cat") for image in mixed])
    batches: list[int] = []
    forward = scorer.preprocess.forward

    def watched(pixels: torch.Tensor) -> torch.Tensor:
        batches.append(len(pixels))
        return forward(pixels)

    monkeypatch.setattr(scorer.preprocess, "forward", watched)
    together = scorer.score(mixed, "a cat")
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert sorted(batches) == [1, 2]
