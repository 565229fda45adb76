"""Best of n with functions `(prompts, seeds) -> images` in place of pipelines."""

import functools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.brightness import Brightness
from PIL import Image

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.output.partial import ResumeError

LEVELS = [30, 200, 90, 160, 10, 240, 120]  # of the candidates with the seeds 0, 1, ...


def greys(prompts: list[str], seeds: list[int], *, offset: int = 0) -> list[Image.Image]:
    assert len(prompts) == len(seeds)
    return [Image.new("RGB", (8, 8), (LEVELS[seed % 7] + offset,) * 3) for seed in seeds]


def test_the_brightest_wins_whatever_the_batch() -> None:
    asked: list[tuple[list[str], list[int]]] = []

    def watched(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        asked.append((prompts, seeds))
        return greys(prompts, seeds)

    selection = best_of_n(watched, "any", Brightness(), 7, keep=2, batch_size=3)
    assert selection.scores == pytest.approx([level / 255 for level in LEVELS], abs=1e-6)
    assert list(selection.kept) == [5, 1]
    assert asked == [(["any"] * n, s) for n, s in ((3, [0, 1, 2]), (3, [3, 4, 5]), (1, [6]))]
    again = best_of_n(greys, "any", Brightness(), 1, seed=selection.seed)
    assert again.scores == [selection.scores[5]]
    both = best_of_n(greys, ["red", "blue"], Brightness(), 2, seed=1, offset=5)
    assert [one.prompt for one in both] == ["red", "blue"]
    assert both[1].scores == pytest.approx([205 / 255, 95 / 255], abs=1e-6)


@pytest.mark.parametrize("kind", ["array", "arrays", "tensors", "output", "paths"])
def test_images_of_every_form(kind: str, tmp_path: Path) -> None:
    def made(prompts: list[str], seeds: list[int]) -> object:
        pictures = greys(prompts, seeds)
        arrays = np.stack([np.asarray(picture) for picture in pictures])
        if kind == "paths":
            for seed, picture in zip(seeds, pictures, strict=True):
                picture.save(tmp_path / f"{seed}.png")
            return [tmp_path / f"{seed}.png" for seed in seeds]
        return {
            "array": arrays,
            "arrays": list(arrays),
            "tensors": [torch.from_numpy(a).permute(2, 0, 1) / 255 for a in arrays],
            "output": SimpleNamespace(images=pictures),
        }[kind]

    selection = best_of_n(made, "any", Brightness(), 5)
    assert selection.scores == pytest.approx([level / 255 for level in LEVELS[:5]], abs=1e-6)
    assert selection.image.mode == "RGB"


def test_a_black_picture_is_never_chosen() -> None:
    def made(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8), (20 if seed else 0,) * 3) for seed in seeds]

    with pytest.warns(UserWarning, match="1 of 2 candidates"):
        selection = best_of_n(made, "any", Brightness(), 2)
    assert list(selection.kept) == [1]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes: list[int] = []

    def made(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        sizes.append(len(seeds))
        if len(seeds) > 1:
            msg = "CUDA out of memory."
            raise torch.cuda.OutOfMemoryError(msg)
        return greys(prompts, seeds)

    assert len(best_of_n(made, "any", Brightness(), 3, batch_size=2).scores) == 3
    assert sizes == [2, 1, 1, 1]


class Service:
    """A generator that says what its pictures depend on."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.made: list[int] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.made += seeds
        return greys(list(prompts), list(seeds))

    def described(self) -> dict[str, object]:
        return {"version": self.version}


def test_a_folder_resumes_with_the_same_function_alone(tmp_path: Path) -> None:
    first = best_of_n(greys, "any", Brightness(), 3, out=tmp_path)
    seen: list[int] = []

    @functools.wraps(greys)  # the same qualified name: the same function, for the folder
    def same(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        seen.extend(seeds)
        return greys(prompts, seeds)

    more = best_of_n(same, "any", Brightness(), 5, out=tmp_path)
    assert seen == [3, 4]
    assert more.scores[:3] == first.scores

    def other(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        return greys(prompts, seeds)

    with pytest.raises(ResumeError, match="pipeline"):
        best_of_n(other, "any", Brightness(), 6, out=tmp_path)
    with pytest.raises(ResumeError, match="arguments"):
        best_of_n(greys, "any", Brightness(), 6, out=tmp_path, offset=3)
    with pytest.raises(ResumeError, match="partial"):
        best_of_n(functools.partial(greys, offset=3), "any", Brightness(), 6, out=tmp_path)
    with pytest.raises(ValueError, match="lambda has no name: write it with def"):
        best_of_n(lambda prompts, seeds: [], "any", Brightness(), 6, out=tmp_path)


def test_an_object_is_told_apart_by_what_it_describes(tmp_path: Path) -> None:
    best_of_n(Service("v1"), "any", Brightness(), 2, out=tmp_path)
    again = Service("v1")
    best_of_n(again, "any", Brightness(), 3, out=tmp_path)
    assert again.made == [2]
    with pytest.raises(ResumeError, match="described"):
        best_of_n(Service("v2"), "any", Brightness(), 4, out=tmp_path)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (None, TypeError, r"made returned a NoneType for 2 seeds; expected a list of 2 images"),
        ("a.png", TypeError, "returned a str"),
        ([Image.new("RGB", (8, 8))], ValueError, "returned 1 images for 2 seeds"),
        (
            [Image.new("RGB", (8, 8), "red"), None],
            TypeError,
            r"image 1 of .*made \(seed 41\) is a ",
        ),
        ([Image.new("RGB", (8, 8), "red"), b"<html>"], ValueError, r"\(seed 41\): .*web page"),
        (np.zeros((2, 8)), ValueError, r"image 0 of .*\(seed 40\)"),
    ],
)
def test_what_is_not_images_is_refused(
    returned: object, error: type[Exception], words: str
) -> None:
    def made(prompts: list[str], seeds: list[int]) -> object:
        del prompts, seeds
        return returned

    with pytest.raises(error, match=words):
        best_of_n(made, "any", Brightness(), 2, seed=40)


def test_what_cannot_be_called_so_is_refused_before_anything_is_made() -> None:
    with pytest.raises(
        TypeError, match=r"cannot be called with \(prompts, seeds\).*expected a fun"
    ):
        best_of_n(lambda prompt: [], "any", Brightness(), 2)
    with pytest.raises(TypeError, match=r"\(prompts, seeds, steps=\)"):
        best_of_n(greys, "any", Brightness(), 2, steps=3)
    with pytest.raises(ValueError, match="a function has none"):
        best_of_n(greys, "any", Brightness(), 2, prune={0.5: 0.5})
    with pytest.raises(TypeError, match="pipe is a int"):
        best_of_n(5, "any", Brightness(), 2)  # type: ignore[call-overload] # on purpose
    with pytest.raises(TypeError, match="pipe is a Linear"):
        best_of_n(torch.nn.Linear(1, 1), "any", Brightness(), 2)
    with pytest.raises(TypeError, match=r"pipe is the class Service"):
        best_of_n(Service, "any", Brightness(), 2)
