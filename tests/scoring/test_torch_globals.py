"""No global of torch changes a score or its type, for every kind of scorer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import pytest
import torch
from helpers.tiny_scorers import BUILDERS
from PIL import Image

import stablepref
from stablepref.assets import ASSETS
from stablepref.integrations.ensemble import Ensemble
from stablepref.models.function import FunctionScorer
from stablepref.scorer import Scorer

PROMPTS = ["a red circle left of a blue star", "a green square"]


def level(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [np.asarray(image).mean() + len(p) for image, p in zip(images, prompts, strict=True)]


def ensemble() -> Scorer:
    return Ensemble([BUILDERS["clip"](), BUILDERS["hps"]()], weights=[1.0, 2.0])


MAKERS: dict[str, Callable[[], Scorer]] = {
    **BUILDERS,
    "shapes": lambda: stablepref.load("shapes", device="cpu", dtype="float32"),
    "shapes-clip": lambda: stablepref.load("shapes-clip", device="cpu", dtype="float32"),
    "function": lambda: FunctionScorer(level, name="level", unit="levels"),
    "ensemble": ensemble,
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)


# Several at once, as each evaluation takes a while.
GLOBALS: dict[str, tuple[Callable[[], AbstractContextManager[object]], ...]] = {
    "default type and device, autocast": (
        lambda: default_dtype(torch.bfloat16),
        lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.enable_grad,
    ),
    "wide default type, no gradient, deterministic": (
        lambda: default_dtype(torch.float64),
        torch.inference_mode,
        deterministic,
    ),
}


def entered(name: str) -> ExitStack:
    """A stack in which these globals hold."""
    stack = ExitStack()
    for one in GLOBALS[name]:
        stack.enter_context(one())
    return stack


@pytest.fixture(scope="module", params=list(MAKERS))
def scorer(request: pytest.FixtureRequest) -> Scorer:
    torch.manual_seed(0)
    return MAKERS[request.param]().eval()


@pytest.fixture(scope="module")
def images() -> list[object]:
    """An 8-bit picture and float pixels, which take the two ways to a model."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)),
        torch.from_numpy(rng.random((3, 80, 64), dtype=np.float32)),
    ]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal in type and device, and up to float32's rounding; that of bfloat16 is 1000 times it."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def results(scorer: Scorer, images: list[object]) -> list[torch.Tensor]:
    scorer._prompt_cache._rows.clear()
    return [scorer.score(images, PROMPTS, views=1), scorer.score_matrix(images, PROMPTS)]


def test_no_global_changes_scores_or_their_type(scorer: Scorer, images: list[object]) -> None:
    plain = results(scorer, images)
    assert [one.dtype for one in plain] == [torch.float32] * 2
    for name in GLOBALS:
        with entered(name):
            found = results(scorer, images)
        for one, other in zip(plain, found, strict=True):
            close(other, one)


def test_a_choice_has_its_own_types_too(images: list[object]) -> None:
    scorer = MAKERS["shapes"]()
    plain = scorer.compare(*images, PROMPTS[0])
    with entered("default type and device, autocast"):
        found = scorer.compare(*images, PROMPTS[0])
        ranked = scorer.rank(images, PROMPTS[0])
    assert found.scores == pytest.approx(plain.scores, abs=1e-5)
    assert found.spread == pytest.approx(plain.spread, abs=1e-5)
    assert [one.score for one in ranked] == pytest.approx(sorted(plain.scores, reverse=True))


@pytest.mark.parametrize("name", list(GLOBALS))
def test_no_global_changes_what_is_loaded(name: str, images: list[object]) -> None:
    plain = stablepref.load("shapes", device="cpu", dtype="float32").score(images, PROMPTS)
    for source in ("shapes", ASSETS / "shapes"):
        stablepref.load.cache_clear()
        with entered(name):
            found = stablepref.load(source, device="cpu", dtype="float32")
        stablepref.load.cache_clear()
        close(found.score(images, PROMPTS), plain)


def test_a_differentiable_score_keeps_its_type(scorer: Scorer) -> None:
    pixels = torch.rand(2, 3, 72, 64)
    for dtype in (torch.bfloat16, torch.float64):
        with default_dtype(dtype), torch.no_grad():
            assert scorer(pixels, PROMPTS).dtype == torch.float32
