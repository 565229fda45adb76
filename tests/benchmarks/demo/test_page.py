"""The demonstration's page: everything inside it, every number the library's own."""

import base64
import html
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.brightness import Brightness
from helpers.demo_case import DrawingPipeline
from helpers.html_outline import Outline
from PIL import Image

from stablepref.augment.perturbations import PERTURBATIONS
from stablepref.benchmarks.demo.result import Demo
from stablepref.benchmarks.demo.run import demo

PROMPT = "a red circle and two blue stars"
COUNT = 14
PICTURE = re.compile(r'<img src="data:image/webp;base64,([^"]+)"[^>]* alt="([^"]+)">')
CARD = re.compile(
    r'<li(?: class="first")?><img [^>]* alt="Place (\d+), seed (\d+), score (\S+), '
    r'((?:not )?correct)">'
    r'<div class="facts-of"><b>(\S+)</b>'
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    return demo(DrawingPipeline(), PROMPT, Brightness(40.0), out=folder, n=COUNT)


@pytest.fixture(scope="module")
def page(shown: Demo) -> str:
    return shown.page.read_text(encoding="utf-8")


def test_candidates_stand_in_order_with_their_own_numbers(shown: Demo, page: str) -> None:
    rows = [
        (place, candidate.seed, f"{candidate.score:.3f}", shown.truth.correct[candidate.index])
        for place, candidate in enumerate(shown.order, start=1)
    ]
    expected = [
        (str(place), str(seed), score, "correct" if right else "not correct", score)
        for place, seed, score, right in rows
    ]
    best, worst, every = page.split("<ol ")[1:]
    assert CARD.findall(best) == expected[:6]
    assert CARD.findall(worst) == expected[-6:]
    assert CARD.findall(every) == expected
    assert page.count("✓") == best.count("✓") + worst.count("✓") + sum(shown.truth.correct.values())


def test_pictures_are_inside_and_lossless(shown: Demo, page: str) -> None:
    found = PICTURE.findall(page)
    assert len(found) == 1 + 6 + 6 + COUNT
    for data, alt in found:
        (seed,) = re.findall(r"seed (\d+)", alt)
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            pixels = np.asarray(image.convert("RGB"))
        with Image.open(shown.selection.pictures[int(seed)]) as image:
            np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_the_numbers_that_matter(shown: Demo, page: str) -> None:
    facts = re.findall(r'<dt class="number">(.+?)</dt><dd>(.+?)</dd>', page)
    right = sum(shown.truth.correct.values())
    assert [value for value, _ in facts] == [
        f"{shown.best - shown.average:+.3f}",
        f"{right} of {COUNT}",
        f"{shown.stays} of 16",
    ]
    assert facts[0][1] == f"best {shown.best:.3f} against average {shown.average:.3f}"
    chosen = shown.truth.correct[shown.selection.kept[0]]
    assert facts[1][1].endswith("the chosen one is" if chosen else "the chosen one is not")


def test_the_table_of_perturbations(shown: Demo, page: str) -> None:
    rows = re.findall(r'<tr data-perturbation="(.+?)">(.+?)</tr>', page)
    assert [name for name, _ in rows] == ["weak-views", *PERTURBATIONS]
    for (_, cells), one in zip(rows, shown.stability, strict=True):
        numbers = re.findall(r'<td class="n" data-name="[a-z ]+">(.+?)</td>', cells)
        assert numbers == [
            f"{one.margin:+.3f}",
            f"{one.spread:.3f}",
            f"{one.correlation:.3f}",
        ]
        assert ("stays the best" in cells) == (one.margin > one.spread)
        assert ("a tie" in cells) == (abs(one.margin) <= one.spread)


def test_the_plot_has_a_dot_for_each_candidate(shown: Demo, page: str) -> None:
    dots = re.findall(r'<circle class="dot( no)?" cx="([\d.]+)"', page)
    assert len(dots) == COUNT
    wrong = [not shown.truth.correct[candidate.index] for candidate in shown.order]
    assert [bool(no) for no, _ in dots] == wrong
    across = [float(x) for _, x in dots]
    assert across == sorted(across, reverse=True)


def test_nothing_is_fetched_and_nothing_unescaped(page: str, tmp_path: Path) -> None:
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    elements = Outline(page).elements
    assert all(attrs["alt"] for tag, attrs in elements if tag == "img")
    assert ("html", {"lang": "en"}) in elements
    hostile = "<script>alert(1)</script> & <i>"
    pipe = DrawingPipeline(shows=PROMPT)
    other = demo(pipe, hostile, Brightness(40.0), out=tmp_path, n=2).page.read_text()
    assert "<script" not in other
    assert "<i>" not in other
    assert f"<h1>{html.escape(hostile)}</h1>" in other
    Outline(other)


DRIVER = """<script>addEventListener("load", () => parent.postMessage([
  innerWidth, document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,
  [...document.images].filter((one) => !one.naturalWidth).length,
  Math.max(...[...document.querySelectorAll("body *")]
    .map((one) => one.getBoundingClientRect().right)),
].join("|"), "*"))</script>"""
FRAME = """<!doctype html><body><p id="told"></p><script>
addEventListener("message", (event) => { told.textContent = event.data; });
</script><iframe src="page.html" style="border:0;width:WIDTHpx;height:900px"></iframe>"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 1280])
def test_it_fits_a_window(width: int, dark: bool, tmp_path: Path, page: str) -> None:
    """In a real browser nothing is wider than the window, in either scheme."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    # Its policy would keep the measuring script from running.
    measured = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "page.html").write_text(measured.replace("</body>", f"{DRIVER}</body>"))
    # Headless windows cannot be narrower than 500 pixels; a frame can.
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--virtual-time-budget=5000", "--dump-dom"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={max(width, 500) + 40},1000",
    ]
    done = subprocess.run(
        [browser, *options, f"file://{tmp_path}/frame.html"],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    (told,) = re.findall(r'<p id="told">(.+?)</p>', done.stdout)
    inner, scrolled, ground, missing, rightmost = told.split("|")
    assert (int(inner), int(scrolled), int(missing)) == (width, width, 0)
    assert float(rightmost) <= width
    assert ground == ("rgb(19, 20, 19)" if dark else "rgb(246, 246, 243)")
