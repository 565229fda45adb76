"""The page of ranked pictures: everything inside it, nothing unescaped."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.html_outline import Outline
from PIL import Image

from stablepref.images.sources import ImageError
from stablepref.scoring.items import Item, Outcome
from stablepref.scoring.page import tied_first, write_page


def outcome(index: int, path: Path, score: float | None, error: str | None = None) -> Outcome:
    return Outcome(index, Item(str(path), path, "x"), score, 0.5 if score else None, error)


@pytest.fixture
def ranked(tmp_path: Path) -> list[Outcome]:
    outcomes = []
    for i, colour in enumerate(["red", "lime"]):
        path = tmp_path / f'<b>{colour}&".png'
        Image.new("RGB", (900, 300), colour).save(path)
        outcomes.append(outcome(i, path, 2.5 - i))
    return outcomes


@pytest.fixture
def page(tmp_path: Path, ranked: list[Outcome]) -> str:
    bad = outcome(2, Path("<i>gone.png"), None, error="<script>alert(1)</script>")
    prompts = {"<i>a</i> cat": ranked}
    write_page(tmp_path / "out.html", prompts, [bad], model="tiny", unit="<u>")
    assert not list(tmp_path.glob("*.tmp"))
    return (tmp_path / "out.html").read_text()


def test_pictures_are_inside_and_in_order(page: str) -> None:
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]
    assert [p.size for p in pictures] == [(512, 171), (512, 171)]
    (red, lime) = [p.getpixel((250, 80)) for p in pictures]
    assert red == pytest.approx((255, 0, 0), abs=20)
    assert lime == pytest.approx((0, 255, 0), abs=20)
    assert page.index("2.5000") < page.index("1.5000")
    assert page.count("spread 0.5000") == 2


def test_nothing_is_fetched_and_nothing_unescaped(page: str) -> None:
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "<i>" not in page
    assert "&lt;i&gt;a&lt;/i&gt; cat" in page
    assert "<b>red" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    names = [attrs.get("title") for tag, attrs in Outline(page).elements if tag == "span"]
    assert any(str(name).endswith('<b>red&".png') for name in names)


def test_every_picture_has_a_name_for_those_who_cannot_see_it(page: str) -> None:
    elements = Outline(page).elements
    images = [attrs for tag, attrs in elements if tag == "img"]
    assert [attrs["alt"] for attrs in images] == [
        'Rank 1, <b>red&".png',
        'Rank 2, <b>lime&".png',
    ]
    assert ("html", {"lang": "en"}) in elements
    assert any(attrs.get("name") == "viewport" for tag, attrs in elements if tag == "meta")


def test_each_prompt_has_a_heading_and_its_own_order(tmp_path: Path, ranked: list[Outcome]) -> None:
    path = tmp_path / "out.html"
    write_page(path, {"a cat": ranked, "a dog": ranked[::-1]}, [], model="tiny", unit="u")
    text = path.read_text()
    assert text.index("<h2>a cat</h2>") < text.index("<h2>a dog</h2>")
    alts = re.findall(r'alt="(Rank \d)[^"]*?(red|lime)', text)
    assert alts == [("Rank 1", "red"), ("Rank 2", "lime"), ("Rank 1", "lime"), ("Rank 2", "red")]
    assert "Not scored" not in text


def test_a_page_of_failures_only(tmp_path: Path) -> None:
    bad = outcome(0, Path("gone.png"), None, error="there is no such file")
    write_page(tmp_path / "out.html", {}, [bad], model="tiny", unit="u")
    assert "there is no such file" in (tmp_path / "out.html").read_text()


def test_an_error_leaves_the_old_page(tmp_path: Path, ranked: list[Outcome]) -> None:
    path = tmp_path / "out.html"
    path.write_text("old")
    Path(ranked[1].item.name).unlink()
    with pytest.raises(ImageError, match="no such file"):
        write_page(path, {"a cat": ranked}, [], model="tiny", unit="u")
    assert path.read_text() == "old"
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_a_window(width: int, tmp_path: Path, page: str) -> None:
    """In a real browser nothing is wider than the window, and the pictures are drawn."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    # Headless windows cannot be narrower than 500 pixels; a frame can.
    frame = f'<iframe src="out.html" style="border:0;width:{width}px;height:1500px"></iframe>'
    (tmp_path / "frame.html").write_text(f'<body style="margin:0;background:#00f">{frame}')
    assert page
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={max(width, 500)},1500",
        f"--screenshot={tmp_path / 'shot.png'}",
    ]
    subprocess.run([browser, *options, f"file://{tmp_path}/frame.html"], check=True, timeout=120)
    with Image.open(tmp_path / "shot.png") as image:
        shot = np.asarray(image.convert("RGB")).astype(int)[:, :width]
    colours = ([255, 0, 0], [0, 255, 0])
    red, lime = ((abs(shot - colour) < 5).all(-1) for colour in colours)
    assert red.sum() > 1000
    assert lime.sum() > 1000
    drawn = np.flatnonzero((red | lime).any(0))
    assert drawn.min() >= 10
    assert drawn.max() < width - 10


def scored_one(index: int, score: float, spread: float | None = None) -> Outcome:
    picture = Image.new("RGB", (8, 8), (index, 0, 0))
    return Outcome(index, Item(f"{index}.png", picture, "a cat"), score, spread, None)


@pytest.mark.parametrize(
    ("scored", "count"),
    [
        ([], 0),
        ([(1.0, 0.2)], 0),
        ([(1.0, 0.2), (0.9, 0.0)], 2),  # 0.1 apart, the mean of the spreads
        ([(1.0, 0.2), (0.8, 0.1)], 0),
        ([(1.0, 0.4), (0.9, 0.2), (0.75, 0.2), (0.6, 0.2)], 3),
        ([(1.0, None), (1.0, None), (0.9, None)], 2),
    ],
)
def test_a_margin_within_the_spread_is_a_tie(
    scored: list[tuple[float, float | None]], count: int
) -> None:
    assert tied_first([scored_one(i, *one) for i, one in enumerate(scored)]) == count


def test_a_tie_is_shown_as_one_and_what_is_kept_is_marked(tmp_path: Path) -> None:
    ranked = [scored_one(i, score, 0.3) for i, score in enumerate((1.0, 0.9, 0.2))]
    page = tmp_path / "page.html"
    write_page(page, {"a cat": ranked}, [], model="m", unit="u", kept=[0, 2])
    text = page.read_text()
    assert '<li class="best">' not in text
    assert text.count('<li class="tie">') == text.count(">tie</span>") == 2
    assert text.count(">kept</span>") == 2
    write_page(page, {"a cat": ranked}, [], model="m", unit="u", tied=0)
    text = page.read_text()
    assert text.count('<li class="best">') == 1
    assert ">tie</span>" not in text
