"""Scores over weak views, and batches of many sizes."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from stablepref.augment.views import weak_view_boxes
from stablepref.integrations.ensemble import Ensemble
from stablepref.models.clip import CLIPScorer
from stablepref.models.function import FunctionScorer
from stablepref.preprocess import preprocess
from stablepref.scoring import batching
from stablepref.scoring.batching import VIEW_SEED


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


def test_views_of_wide_beside_tall_pictures_are_not_padded_to_both(
    scorer: CLIPScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    shapes = [(20, 300, 3), (300, 20, 3)] * 3
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    alone = torch.cat([scorer.score(array, "a cat", views=2) for array in arrays])
    prepared: list[int] = []
    forward = scorer.preprocess.forward

    def watched(pixels: Sequence[torch.Tensor], *views: torch.Tensor) -> torch.Tensor:
        sides = [picture.shape[-2:] for picture in pixels]
        height, width = (max(side[i] for side in sides) for i in (0, 1))
        prepared.append(len(pixels) * height * width)
        return forward(pixels, *views)

    monkeypatch.setattr(scorer.preprocess, "forward", watched)
    together = scorer.score(arrays, "a cat", views=2, batch_size=100)
    assert sum(prepared) == 6 * 20 * 300
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


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
    pair = [pictures[0], pictures[0].copy()]  # of one size, so prepared together
    scorer.score(pair, ["a cat left of a dog", "a cat and a dog"], views=8, batch_size=18)
    (flips,) = seen
    assert not flips[0].any()
    assert flips[1].any()


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


@pytest.mark.parametrize("prompt", ["a cat", "a cat on the left"])
def test_views_of_a_large_picture_are_those_of_any_other(
    prompt: str, scorer: CLIPScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut out strip by strip where it is decoded, and made of its pixels as a small one's."""
    rng = np.random.default_rng(4)
    picture = Image.fromarray(rng.integers(0, 256, (1100, 2100, 3), dtype=np.uint8))
    monkeypatch.setattr(batching, "LARGE", 10**9)
    (whole,) = scorer.stream([picture], prompt, views=3)
    monkeypatch.setattr(batching, "LARGE", 2**21)

    def never(*_: object) -> None:
        raise AssertionError("all pixels as floats")

    monkeypatch.setattr(scorer.preprocess, "forward", never)
    (in_strips,) = scorer.stream([picture], prompt, views=3)
    assert in_strips.view_scores == pytest.approx(whole.view_scores, abs=1e-3)
    assert whole.spread > 0


def test_views_of_a_large_picture_take_little_memory(scorer: CLIPScorer) -> None:
    """A file of kilobytes with 64 million pixels: as floats they would take 768 MB."""
    code = io.BytesIO()
    Image.new("1", (8000, 8000)).save(code, "PNG")
    assert len(code.getvalue()) < 40_000
    floats: list[int] = []
    convert = preprocess._to_tensor

    def watched(image: Image.Image) -> torch.Tensor:
        floats.append(image.width * image.height)
        return convert(image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "_to_tensor", watched)
        (found,) = scorer.stream([code.getvalue()], "a cat", views=2)
    assert found.error is None
    assert max(floats) <= 2**20
    assert sum(floats) > 0.85 * 8000 * 8000


def test_an_ensemble_cuts_views_out_of_large_pictures_too(
    scorer: CLIPScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    picture = Image.fromarray(rng.integers(0, 256, (120, 150, 3), dtype=np.uint8))

    def level(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [float(np.asarray(image).mean()) for image in images]

    function = FunctionScorer(level, name="level", unit="levels")
    for one in (function, Ensemble([scorer, function], weights=[1.0, 0.1])):
        (plain,) = one.stream([picture], "a cat", views=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batching, "LARGE", 1000)
            (cut,) = one.stream([picture], "a cat", views=3)
        assert cut.view_scores == pytest.approx(plain.view_scores, abs=1e-3)
