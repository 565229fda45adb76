"""The demonstration: its numbers are the library's own, and it goes on after a kill."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.brightness import Brightness
from helpers.demo_case import DrawingPipeline
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from stablepref.benchmarks.demo import picture
from stablepref.benchmarks.demo.page import write_demo_page
from stablepref.benchmarks.demo.result import Demo
from stablepref.benchmarks.demo.run import demo
from stablepref.benchmarks.demo.words import (
    about_choice,
    about_model,
    about_stability,
    about_truth,
    verdict,
)
from stablepref.benchmarks.shapes.oracle.grading import grade
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.output.partial import ResumeError

PROMPT = "a red circle and a blue star"
COUNT = 21


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    return demo(DrawingPipeline(), PROMPT, Brightness(40.0), out=folder, n=COUNT, seed=30)


def test_the_choice_is_best_of_n(shown: Demo) -> None:
    call = {"num_inference_steps": 25, "guidance_scale": 4.0}
    expected = best_of_n(DrawingPipeline(), PROMPT, Brightness(40.0), COUNT, seed=30, **call)
    assert shown.selection.seed == expected.seed
    assert shown.selection.scores == pytest.approx(expected.scores, abs=1e-4)
    assert shown.selection.margin == pytest.approx(expected.margin, abs=1e-4)
    scores = np.array(expected.scores)
    assert shown.scores == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
    assert shown.average == pytest.approx(scores.mean())
    assert shown.gain == pytest.approx(scores.max() - scores.mean())
    assert shown.deviations == pytest.approx((scores.max() - scores.mean()) / scores.std())


def test_the_truth_is_the_oracles(shown: Demo) -> None:
    scene = parse(PROMPT)
    expected = {}
    for candidate in shown.selection.candidates:
        with Image.open(shown.selection.pictures[candidate.index]) as image:
            expected[candidate.index] = grade(np.asarray(image), scene).correct
    assert shown.truth.correct == expected
    right = sum(expected.values())
    assert 0 < right < COUNT
    assert f"{right} of the {COUNT} candidates" in about_truth(shown)
    best = [expected[candidate.index] for candidate in shown.order[:10]]
    assert f"{sum(best)} of the 10 best" in about_truth(shown)


def test_what_is_said_of_stability(shown: Demo) -> None:
    assert len(shown.stability) == 16
    clear = [one for one in shown.stability if abs(one.margin) > one.spread]
    assert shown.stays == sum(one.place == 1 for one in clear)
    assert shown.ties == 16 - len(clear)
    assert f"under {shown.stays} of 16" in about_stability(shown)
    for one in shown.stability:
        told = verdict(one, 77)
        assert ("tie" in told) == (abs(one.margin) <= one.spread)
        assert ("stays" in told) == (one.margin > one.spread)
        assert ("less" in told) == (abs(one.margin) <= one.spread)
        assert ("seed 77" in told) == (one.margin < 0)
    tie = shown.selection.tie
    assert ("does not prefer" in about_choice(shown)) == tie


def test_ties_alone_are_no_stable_choice(shown: Demo, tmp_path: Path) -> None:
    """A lead within the spread is no preference, however often it is there."""
    rows = [replace(one, place=1, margin=one.spread / 2) for one in shown.stability]
    selection = replace(shown.selection, margin=0.1, spread=0.2, tie=True)
    tied = replace(shown, stability=rows, selection=selection)
    assert (tied.stays, tied.ties) == (0, 16)
    assert "by more than the spread, under 0 of 16" in about_stability(tied)
    assert "Under 16 the first two are within the spread" in about_stability(tied)
    write_demo_page(tmp_path / "tied.html", tied)
    page = (tmp_path / "tied.html").read_text()
    assert "0 of 16" in page
    assert "perturbations under which the best stays the best; 16 are ties" in page
    assert '<td class="stays">' not in page
    assert '<li class="first">' not in page
    assert "A tie of the first two" in page


def test_the_file_of_numbers_has_them_all(shown: Demo) -> None:
    numbers = json.loads((shown.page.parent / "demo.json").read_text())
    assert numbers["best"] == shown.best
    assert numbers["average"] == shown.average
    assert [row["seed"] for row in numbers["candidates"]] == list(range(30, 30 + COUNT))
    assert [row["margin"] for row in numbers["stability"]] == [o.margin for o in shown.stability]
    assert numbers["correct"] == {str(i): known for i, known in shown.truth.correct.items()}
    assert numbers["finetuning"] is None


def test_the_picture_shows_the_best_pixel_by_pixel(shown: Demo) -> None:
    with Image.open(shown.picture) as image:
        card = np.asarray(image.convert("RGB")).astype(int)
    assert card.shape == (675, 1200, 3)
    best = np.asarray(shown.selection.image).astype(int)
    side = 392 / 64
    centres = ((np.arange(2, 62) + 0.5) * side).astype(int)  # the frame covers the outermost
    found = card[120 + centres][:, 48 + centres]
    assert np.abs(found - best[2:62, 2:62]).max() <= 2


@pytest.mark.parametrize("ties", [0, 1, 11])
def test_every_word_of_the_picture_lies_inside(
    ties: int, shown: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Demo, "ties", property(lambda _: ties))
    monkeypatch.setattr(picture, "save_figure", lambda figure, *_, **__: drawn.append(figure))
    picture.draw_card(Path("not-written.png"), shown)
    canvas = FigureCanvasAgg(drawn[0])
    texts = drawn[0].axes[0].texts
    assert len(texts) > 8
    assert any("tie" in text.get_text() for text in texts) == (ties > 0)
    for text in texts:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= picture.SIZE[0] - 10, text
        assert box.y1 <= picture.SIZE[1], text


def test_an_interrupted_one_goes_on_and_a_finished_one_makes_nothing(tmp_path: Path) -> None:
    scorer = Brightness(40.0)
    with pytest.raises(KeyboardInterrupt):
        demo(DrawingPipeline(breaks_after=4), PROMPT, scorer, out=tmp_path, n=6)
    assert not (tmp_path / "index.html").exists()
    pipe = DrawingPipeline()
    first = demo(pipe, PROMPT, scorer, out=tmp_path, n=6)
    assert pipe.drawn == 2
    page = first.page.read_bytes()
    demo(pipe, PROMPT, scorer, out=tmp_path, n=6)
    assert pipe.drawn == 2
    assert first.page.read_bytes() == page
    more = demo(pipe, PROMPT, scorer, out=tmp_path, n=7)
    assert pipe.drawn == 3
    assert more.selection.scores[:6] == first.selection.scores
    with pytest.raises(ResumeError, match="choose another"):
        demo(pipe, "a red circle", scorer, out=tmp_path, n=6)


def test_of_other_prompts_and_models_no_more_is_said_than_is_known(tmp_path: Path) -> None:
    pipe = DrawingPipeline(shows=PROMPT)
    shown = demo(pipe, "a $10 bill on the left", Brightness(40.0), out=tmp_path, n=2)
    assert not shown.truth.correct
    assert "not known here" in about_truth(shown)
    assert "cannot draw" in about_truth(shown)
    assert "laboratory" not in about_model(shown)
    assert len(shown.stability) == 11  # without those that mirror
    page = shown.page.read_text()
    assert "oracle" not in page
    assert "✓" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 1}, "n is 1; expected 2 or more"),
        ({"prompt": " "}, "empty"),
        ({"finetune": True, "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_use_is_told_before_anything_is_made(
    tmp_path: Path, arguments: dict[str, object], says: str
) -> None:
    pipe = DrawingPipeline()
    call: dict[str, object] = {"prompt": PROMPT, "scorer": Brightness(40.0), "n": 3, **arguments}
    with pytest.raises(ValueError, match=says):
        demo(pipe, out=tmp_path / "out", **call)  # type: ignore[arg-type] # of any kind
    assert pipe.drawn == 0
    assert not (tmp_path / "out").exists()


def test_a_pipeline_that_cannot_be_fine_tuned_is_told_before_anything_is_made(
    tmp_path: Path,
) -> None:
    pipe = DrawingPipeline()
    with pytest.raises(TypeError, match="DrawingPipeline"):
        demo(pipe, PROMPT, Brightness(40.0), out=tmp_path / "out", n=3, finetune=True)
    assert pipe.drawn == 0
