"""Rankings and other results as a notebook shows them, and as data frames."""

import base64
import io
import pickle
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.html_outline import unstyled
from helpers.isolated import isolated
from PIL import Image

import stablepref
from stablepref.scoring.ranking import Ranking
from stablepref.scoring.stream import Scored

PROMPT = "a <red> circle"
COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}


@pytest.fixture
def redness() -> stablepref.FunctionScorer:
    """Scores how red the pixel in the middle is."""

    def score(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [
            one.convert("RGB").getpixel((4, 4))[0] - 99.0 * (len(prompts) > 9) for one in images
        ]

    return stablepref.FunctionScorer(score, name="redness", unit="levels")


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), COLOURS[colour])


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in found]


def near(picture: Image.Image, colour: str) -> bool:
    pixel = np.array(picture.getpixel((4, 4)), float)
    return bool(np.abs(pixel - COLOURS[colour]).max() < 12)


def test_a_ranking_is_the_list_it_was(redness: stablepref.FunctionScorer) -> None:
    ranking = redness.rank([plain("blue"), plain("red"), plain("green")], PROMPT)
    assert isinstance(ranking, list)
    assert ranking == list(ranking)
    assert ranking[0].index == 1
    assert all(a.score >= b.score for a, b in pairwise(ranking))


@pytest.mark.parametrize("form", ["pil", "array", "tensor", "paths", "nested"])
def test_pictures_stand_in_their_order(
    form: str, redness: stablepref.FunctionScorer, tmp_path: Path
) -> None:
    images: list[object] = []
    for colour in ("blue", "red"):
        picture = plain(colour)
        match form:
            case "array":
                images.append(np.asarray(picture))
            case "tensor":
                images.append(torch.from_numpy(np.asarray(picture) / 255).float().permute(2, 0, 1))
            case "paths":
                picture.save(tmp_path / f"{colour}.png")
                images.append(tmp_path / f"{colour}.png")
            case _:
                images.append(picture)
    html = redness.rank((images,) if form == "nested" else images, PROMPT)._repr_html_()
    best, worst = pictures(html)
    assert near(best, "red")
    assert near(worst, "blue")
    assert html.index("1: 255.0000") < html.index("2: 0.0000")


def test_text_is_escaped_and_nothing_is_fetched(redness: stablepref.FunctionScorer) -> None:
    html = redness.rank([plain("red")], PROMPT)._repr_html_()
    assert "a &lt;red&gt; circle" in html
    assert "<red>" not in html
    assert not re.findall(r"https?:|<script", html)


def test_what_cannot_be_read_again_is_left_out(redness: stablepref.FunctionScorer) -> None:
    """A generator is used up; what a second walk finds in its place would be another picture."""
    mixed = [(plain(colour) for colour in ("blue", "green")), plain("red")]
    html = redness.rank(mixed, PROMPT)._repr_html_()
    assert pictures(html) == []
    assert html.count("<tr>") == 4


def test_a_file_that_has_gone_leaves_its_row(
    redness: stablepref.FunctionScorer, tmp_path: Path
) -> None:
    for colour in ("blue", "red"):
        plain(colour).save(tmp_path / f"{colour}.png")
    ranking = redness.rank([tmp_path / "blue.png", tmp_path / "red.png"], PROMPT)
    (tmp_path / "red.png").unlink()
    (left,) = pictures(ranking._repr_html_())
    assert near(left, "blue")
    assert ranking._repr_html_().count("<tr>") == 3


def test_a_folder_that_has_changed_shows_no_other_picture(
    redness: stablepref.FunctionScorer, tmp_path: Path
) -> None:
    for name in ("b", "c"):
        plain("blue").save(tmp_path / f"{name}.png")
    ranking = redness.rank(tmp_path, PROMPT)
    plain("red").save(tmp_path / "a.png")
    assert pictures(ranking._repr_html_()) == []
    for path in tmp_path.iterdir():
        path.unlink()
    assert pictures(ranking._repr_html_()) == []


def test_failures_are_named(redness: stablepref.FunctionScorer) -> None:
    with pytest.warns(UserWarning, match="1 of 2"):
        ranking = redness.rank([plain("red"), b"no image"], PROMPT, on_error="nan")
    html = ranking._repr_html_()
    assert ranking[1].error
    assert "<th>error</th>" in unstyled(html)
    assert len(pictures(html)) == 1
    frame = ranking.to_pandas()
    assert list(frame["index"]) == [0, 1]
    assert pd.isna(frame["score"][1])


def test_only_the_best_are_shown(redness: stablepref.FunctionScorer) -> None:
    shades = [Image.new("RGB", (8, 8), (8 * shade, 0, 0)) for shade in range(30)]
    html = redness.rank(shades, PROMPT)._repr_html_()
    shown = pictures(html)
    assert len(shown) == 12
    assert abs(shown[-1].getpixel((4, 4))[0] - 8 * 18) < 8  # 29 to 18 are the twelve reddest
    assert html.count("<tr>") == 31


def test_an_empty_ranking_says_so() -> None:
    assert "nothing was ranked" in Ranking()._repr_html_()
    assert Ranking().to_pandas().empty


def test_it_is_pickled_without_its_images() -> None:
    scored = Scored(0, "image", PROMPT, 1.0, (1.0,))
    again = pickle.loads(pickle.dumps(Ranking([scored], model="m", images=[plain("red")])))
    assert again == [scored]
    assert again.model == "m"
    assert pictures(again._repr_html_()) == []


def test_a_comparison_shows_itself(redness: stablepref.FunctionScorer) -> None:
    html = redness.compare(plain("red"), plain("blue"), PROMPT)._repr_html_()
    assert "a is preferred" in html
    assert "<td>255</td><td>0</td><td>255</td>" in unstyled(html)
    assert "a tie" in redness.compare(plain("red"), plain("red"), PROMPT)._repr_html_()


def test_pandas_is_named_where_it_is_missing(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["pandas"] = None
from stablepref.output.notebook import data_frame
try:
    data_frame([], ())
except ImportError as error:
    print(error)
"""
    assert 'pip install "stablepref[notebook]"' in isolated(code, tmp_path)
