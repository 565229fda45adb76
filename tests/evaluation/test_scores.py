"""Scores of groups: each image decoded and encoded once, in order, with little in memory."""

import gc
import io
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.shades import ShadeScorer, shade, shades
from helpers.small_blip import small_scorer
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.augment.perturbations import PERTURBATIONS, Perturbation
from stablepref.data.groups import RankedGroup
from stablepref.evaluation.groups import PendingGroup, ScoredGroup
from stablepref.evaluation.scores import FeatureMemory, GroupScores
from stablepref.images.decoding import decode
from stablepref.images.sources import Source
from stablepref.models.blip import BLIPScorer, ImageRewardScorer
from stablepref.scorer import Scorer
from stablepref.scoring import batching as pipeline
from stablepref.scoring.batching import BatchLimit

SOME = {name: PERTURBATIONS[name] for name in ("hflip+crop-0.9", "jpeg-50")}


def scored(
    scorer: Scorer,
    groups: Iterable[RankedGroup],
    perturbations: dict[str, Perturbation] | None = None,
    batch_size: int = 4,
) -> Iterator[ScoredGroup]:
    scores = GroupScores(scorer, perturbations or {}, BatchLimit(batch_size))
    pending = ((g, PendingGroup.of(g, n, scores.keys)) for n, g in enumerate(groups, start=1))
    return scores.stream(pending)


def noise(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    sizes = [(int(w), int(h)) for w, h in rng.integers(40, 90, (count, 2))]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image is decoded from now on."""
    names: Counter[str] = Counter()

    def counted(source: Source) -> object:
        names[source.name] += 1
        return decode(source)

    monkeypatch.setattr(pipeline, "decode", counted)
    return names


@pytest.mark.parametrize("kind", ["two towers", "joint", "cosine"])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_scores_equal_those_of_single_images(kind: str, batch_size: int) -> None:
    """Two-tower and joint scorers alike, against one call for each disturbed picture."""
    scorer = {
        "two towers": tiny_clip,
        "joint": lambda: small_scorer(ImageRewardScorer),
        "cosine": lambda: small_scorer(BLIPScorer),
    }[kind]()
    pictures = noise(7)
    groups = [
        RankedGroup("a red fox", tuple(pictures[:3]), (1, 2, 3)),
        RankedGroup("two owls", tuple(pictures[3:]), (1, 2, 2, 1)),
        RankedGroup("two owls", (pictures[5], pictures[0]), (1, 2)),  # one repeated, one re-matched
    ]
    found = list(scored(scorer, groups, SOME, batch_size))
    assert [group.label for group in found] == ["group 1", "group 2", "group 3"]
    for group, result in zip(groups, found, strict=True):
        expected = [
            [scorer.score(disturb(image), group.prompt).item() for image in group.images]
            for disturb in (lambda image: image, *SOME.values())
        ]
        np.testing.assert_allclose(result.scores, expected, rtol=2e-5, atol=2e-5)
        assert result.ranks == group.ranks
        assert result.errors == {}


def test_features_in_half_precision_are_matched_again() -> None:
    scorer = small_scorer(ImageRewardScorer).bfloat16()
    pictures = noise(2)
    groups = [RankedGroup(prompt, tuple(pictures), (1, 2)) for prompt in ("a red fox", "two owls")]
    for group, result in zip(groups, scored(scorer, groups, SOME), strict=True):
        expected = [scorer.score(image, group.prompt).item() for image in group.images]
        np.testing.assert_allclose(result.scores[0], expected, rtol=0.02, atol=0.02)


def test_each_image_is_decoded_and_encoded_once(tmp_path: Path, decoded: Counter[str]) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        shade(10 * i).save(path)
    groups = [
        RankedGroup("p", (paths[0], paths[1], paths[0]), (1, 2, 3)),
        RankedGroup("p", (str(paths[1]), paths[2]), (1, 2)),
        RankedGroup("double", (paths[0], paths[3]), (1, 2)),
        RankedGroup("double", (paths[3], paths[0]), (1, 2)),
        RankedGroup("p", (paths[3], paths[4]), (1, 2)),
    ]
    scorer = ShadeScorer()
    for batch_size in (1, 3, 50):
        scorer.encoded = 0
        decoded.clear()
        found = list(scored(scorer, groups, SOME, batch_size))
        assert scorer.encoded == 5 * (1 + len(SOME))
        assert decoded == dict.fromkeys(map(str, paths), 1)
        values = [group.scores[0].round(3).tolist() for group in found]
        assert values == [[0, 10, 0], [10, 20], [0, 60], [60, 0], [30, 40]]


def test_equal_bytes_are_one_image() -> None:
    buffer = io.BytesIO()
    shade(50).save(buffer, "PNG")
    data = buffer.getvalue()
    scorer = ShadeScorer()
    groups = [RankedGroup("p", (data, bytes(bytearray(data))), (1, 2))] * 3
    assert len(list(scored(scorer, groups))) == 3
    assert scorer.encoded == 1


def test_groups_come_one_by_one_and_their_images_are_let_go() -> None:
    pictures: list[weakref.ref[object]] = []
    read = 0

    def endless() -> Iterator[RankedGroup]:
        nonlocal read
        while True:
            read += 1
            group = shades(f"prompt {read}", (1, 2, 3), (1, 2, 3))
            pictures.extend(map(weakref.ref, group.images))
            yield group

    stream = scored(ShadeScorer(), endless(), batch_size=3)
    for number in range(1, 60):
        assert next(stream).prompt == f"prompt {number}"
    gc.collect()
    assert sum(picture() is not None for picture in pictures) < 60
    assert read < 60 + 20
    stream.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("stablepref-ahead")]


def test_bad_images_are_named_and_the_others_scored(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    groups = [
        RankedGroup("p", (shade(1), bad, shade(3)), (1, 2, 3)),
        RankedGroup("double", (bad, shade(2)), (1, 2), id="last"),
    ]
    first, second = scored(ShadeScorer(), groups)
    assert np.isnan(first.scores[:, 1]).all()
    assert first.scores[0, [0, 2]].round(3).tolist() == [1, 3]
    assert list(first.errors) == [1]
    assert first.errors[1].startswith("it is not an image")
    assert first.images[1] == str(bad)
    assert (second.label, list(second.errors)) == ("last", [0])
    kept = first.without_errors()
    assert kept is not None
    assert (kept.ranks, kept.errors) == ((1, 3), {})
    assert second.without_errors() is None


def test_a_perturbation_that_cannot_be_done_excludes_the_image() -> None:
    def only_bright(image: Image.Image) -> Image.Image:
        if image.getpixel((0, 0)) == (0, 0, 0):
            raise ValueError("too dark")
        return image

    (group,) = scored(ShadeScorer(), [shades("p", (0, 9), (1, 2))], {"bright": only_bright})
    assert group.errors == {0: "under the perturbation bright: too dark"}


def test_a_score_that_is_no_number_excludes_the_image() -> None:
    scorer = ShadeScorer()

    def to_black(image: Image.Image) -> Image.Image:
        return Image.new("RGB", image.size)

    with torch.no_grad():
        scorer.weight.fill_(float("inf"))  # inf * 0 is NaN, inf * 0.5 is not finite either
    group, _ = scored(scorer, [shades("p", (0, 128), (1, 2))] * 2, {"black": to_black})
    assert group.errors == {0: "the model's score is nan", 1: "the model's score is inf"}


def test_float_pixels_are_scored_as_they_are_and_disturbed_in_8_bits() -> None:
    scorer = tiny_clip()
    picture = noise(1)[0]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    (group,) = scored(scorer, [RankedGroup("a cat", (pixels, picture), (1, 2))], SOME)
    assert group.scores[0, 0] == pytest.approx(scorer.score(pixels, "a cat").item(), abs=1e-5)
    np.testing.assert_allclose(group.scores[1:, 0], group.scores[1:, 1], atol=1e-5)


def test_an_error_of_the_groups_comes_after_those_before() -> None:
    def broken() -> Iterator[RankedGroup]:
        yield shades("p", (1, 2), (1, 2))
        raise ValueError("line 2 is damaged")

    stream = scored(ShadeScorer(), broken())
    assert next(stream).prompt == "p"
    with pytest.raises(ValueError, match="line 2"):
        next(stream)


def feature(value: float) -> torch.Tensor:
    return torch.full((4,), value, dtype=torch.float32)  # 16 bytes


def test_the_oldest_features_go_first() -> None:
    memory = FeatureMemory(room=32)
    for key in "abc":
        memory.put(key, feature(ord(key)))
    assert [memory.holds(key) for key in "abc"] == [False, True, True]
    memory.put("b", feature(0))  # put anew, not twice
    assert memory.holds("c")


def test_what_is_remembered_is_not_looked_through_at_every_image() -> None:
    """It was: the time of a large evaluation grew with the square of its images."""
    looked = 0

    class Rows(OrderedDict[Any, torch.Tensor]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked
            for key in super().__iter__():
                looked += 1
                yield key

        def items(self) -> Iterator[tuple[Any, torch.Tensor]]:  # type: ignore[override] # a view is not needed
            return ((key, self[key]) for key in self)

    memory = FeatureMemory(room=16 * 50)
    memory._rows = Rows()
    for key in range(100):
        memory.put(key, feature(key))
    assert [memory.holds(key) for key in (49, 50)] == [False, True]
    assert looked <= 2 * 100


def test_features_that_are_waited_for_stay() -> None:
    memory = FeatureMemory(room=16)
    memory.wait("a")
    memory.wait("a")
    for key in "abc":
        memory.put(key, feature(ord(key)))
    assert [memory.holds(key) for key in "abc"] == [True, False, False]
    assert memory.take("a").tolist() == feature(ord("a")).tolist()
    memory.put("d", feature(0))
    assert memory.holds("a")  # one still waits
    memory.take("a")
    memory.put("e", feature(0))
    assert not memory.holds("a")
