"""Streaming when images, generators or memory fail."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.images.sources import ImageError, Source
from stablepref.models.clip import CLIPScorer
from stablepref.scoring import batching as pipeline


@pytest.mark.parametrize("count", [0, 1, 4, 10])
@pytest.mark.parametrize("error", [OSError, KeyError, ValueError])
def test_an_error_of_a_generator_comes_after_the_images_before_it(
    scorer: CLIPScorer, pictures: list[Image.Image], count: int, error: type[Exception]
) -> None:
    def broken() -> Iterator[Image.Image]:
        yield from pictures[:count]
        raise error("the disk is gone")

    stream = scorer.stream(broken(), "a cat", batch_size=4)
    found = [next(stream).score for _ in range(count)]
    with pytest.raises(error, match="the disk is gone"):
        next(stream)
    alone = [scorer.score(picture, "a cat").item() for picture in pictures[:count]]
    assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_a_thread_that_fails_loses_no_image_before_it(
    scorer: CLIPScorer, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pipeline.decode

    def exhausted(source: Source) -> object:
        if source.index == 6:
            raise RuntimeError("the disk is gone")
        return decode(source)

    monkeypatch.setattr(pipeline, "decode", exhausted)
    stream = scorer.stream(pictures, "a cat", batch_size=4)
    assert [next(stream).index for _ in range(6)] == list(range(6))
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(stream)


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
    expected = scorer.score(files[:7], "a cat")
    torch.testing.assert_close(caught.value.scores, expected)
    stream = scorer.stream(files, "a cat", batch_size=5)
    found = [next(stream).score for _ in range(7)]
    with pytest.raises(ImageError) as ended:
        next(stream)
    assert ended.value.scores is not None
    assert ended.value.scores.tolist() == pytest.approx(found)
    assert found == pytest.approx(expected.tolist())


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
    with pytest.warns(UserWarning, match=r"^1 of 12 images got NaN; the first: .*04\.png") as told:
        matrix = scorer.score_matrix(files, ["a cat", "a dog"], on_error="nan")
    assert [Path(warning.filename).name for warning in told] == ["test_stream_errors.py"]
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


def test_what_fits_is_remembered_for_the_scorer(
    pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tiny_clip()
    sizes: list[int] = []
    encode = scorer.encode_inputs

    def limited(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return encode(inputs)

    monkeypatch.setattr(scorer, "encode_inputs", limited)
    scorer.score(pictures, "a cat")
    assert sizes == [12, 8, 4, 4, 4]  # at most 16 at once, then 8, then 4
    sizes.clear()
    scorer.score(pictures, "a cat")
    assert sizes == [4, 4, 4]
    sizes.clear()
    scorer.score(pictures, "a cat", batch_size=6)  # an explicit size is taken at its word
    assert sizes == [6, 3, 3, 3, 3]
    assert pipeline.BatchLimit.of(scorer, None).size == 3
    # Another scorer begins anew.
    assert pipeline.BatchLimit.of(tiny_clip(), None).size == pipeline.CPU_BATCH


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


@pytest.mark.parametrize("where", ["decode", "exact"])
@pytest.mark.parametrize(
    "failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 80 GB")]
)
def test_an_image_too_large_for_memory_is_an_error_of_its_own(
    where: str,
    failure: Exception,
    pictures: list[Image.Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = tiny_clip()
    decode, exact = pipeline.decode, scorer.preprocess.exact
    calls = iter(range(100))

    def decoding(source: Source) -> object:
        if where == "decode" and source.index == 2:
            raise failure
        return decode(source)

    def preparing(image: Image.Image) -> torch.Tensor:
        if where == "exact" and image.size == pictures[2].size:
            raise failure
        next(calls)
        return exact(image)

    monkeypatch.setattr(pipeline, "decode", decoding)
    monkeypatch.setattr(scorer.preprocess, "exact", preparing)
    rows = list(scorer.stream(iter(pictures), "a cat"))
    assert [row.index for row in rows if row.error is not None] == [2]
    assert "image 2 (PIL image 88x62 RGB): it does not fit into memory" in str(rows[2].error)


def test_a_large_picture_that_does_not_fit_does_not_end_the_stream(
    pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float picture is converted where the model is, and may be too large for that alone."""
    scorer = tiny_clip()
    monkeypatch.setattr(pipeline, "LARGE", 100)
    prepare = scorer.preprocess.forward

    def limited(pixels: torch.Tensor, *rest: object) -> torch.Tensor:
        if pixels.shape[-1] > 50:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return prepare(pixels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer.preprocess, "forward", limited)
    sides = (40, 60, 40, 40, 60)
    rows = list(scorer.stream((torch.rand(3, side, side) for side in sides), "a cat"))
    assert [row.error is not None for row in rows] == [side > 50 for side in sides]
    assert "does not fit into memory (CUDA out of memory" in str(rows[1].error)
    with pytest.raises(ImageError, match="image 1 "):
        scorer.score([torch.rand(3, side, side) for side in sides], "a cat")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_an_error_of_its_image(
    value: float, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tiny_clip()
    match = scorer.match

    def odd(images: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        scores = match(images, prompts).clone()
        scores[len(scores) // 2] = value
        return scores

    monkeypatch.setattr(scorer, "match", odd)
    with pytest.raises(ImageError, match=rf"image 1 .*the model's score is {value}") as caught:
        scorer.score(pictures[:3], "a cat")
    assert caught.value.scores is not None
    assert len(caught.value.scores) == 1
    with pytest.warns(UserWarning, match=r"1 of 3 images got NaN.*image 1"):
        scores = scorer.score(pictures[:3], "a cat", on_error="nan")
    assert scores.isnan().tolist() == [False, True, False]
    with pytest.warns(UserWarning, match="1 of 3 images"):
        ranked = scorer.rank(pictures[:3], "a cat", on_error="nan")
    assert ranked[-1].index == 1
    assert "score is" in str(ranked[-1].error)
    with pytest.warns(UserWarning, match=r"1 of 3 .*for the prompt 'two'"):
        matrix = scorer.score_matrix(pictures[:3], ["one", "two", "three"], on_error="nan")
    assert matrix.isnan().sum() == 1
