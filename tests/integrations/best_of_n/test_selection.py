"""What is written of a selection, and the contact sheet."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablepref.integrations.best_of_n.folder import Candidate
from stablepref.integrations.best_of_n.selection import Selection, in_order
from stablepref.output.sheet import contact_sheet

COLOURS = ["red", "lime", "blue", "yellow"]


def picture(colour: str, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)


def selection(**changes: object) -> Selection:
    candidates = [
        Candidate(0, 10, 1.0),
        Candidate(1, 11, 3.0),
        Candidate(2, 12, None, "entirely black"),
        Candidate(3, 13, 2.0),
    ]
    fields: dict[str, object] = {
        "prompt": "a <b>bold</b> prompt",
        "images": [picture("lime"), picture("yellow")],
        "kept": [1, 3],
        "candidates": candidates,
        "margin": 1.0,
        "spread": 0.25,
        "tie": False,
        "model": "tiny",
        "unit": "points",
        "pictures": {},
    }
    return Selection(**{**fields, **changes})  # type: ignore[arg-type] # as above


def test_save_without_a_folder_of_candidates_shows_those_kept(tmp_path: Path) -> None:
    selection().save(tmp_path / "chosen")
    folder = tmp_path / "chosen"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best-01-seed-11.png",
        "best-02-seed-13.png",
        "candidates.html",
        "candidates.png",
        "selection.json",
    ]
    with Image.open(folder / "best-01-seed-11.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture("lime")))
    page = (folder / "candidates.html").read_text()
    assert page.index("seed 11") < page.index("seed 13")
    assert "seed 10" not in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "entirely black" in page
    row = json.loads((folder / "selection.json").read_text())
    assert [c["seed"] for c in row["candidates"]] == [10, 11, 12, 13]
    assert [c["score"] for c in row["kept"]] == [3.0, 2.0]


def test_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    selection().save(tmp_path)
    selection(prompt="another").save(tmp_path)
    assert json.loads((tmp_path / "selection.json").read_text())["prompt"] == "another"
    assert not list(tmp_path.glob("*.tmp"))


def test_equal_scores_stay_in_order() -> None:
    rows = [Candidate(i, i, score) for i, score in enumerate([1.0, 2.0, None, 2.0, 1.0])]
    assert [candidate.index for candidate in in_order(rows)] == [1, 3, 0, 4]


def test_contact_sheet_has_every_picture_in_its_place() -> None:
    sheet = contact_sheet(
        [picture(colour) for colour in COLOURS], ["line"] * 4, title="a title", side=60
    )
    pixels = np.asarray(sheet)
    # 4 pictures: ceil(sqrt(6)) = 3 columns; 72 pixels from one to the next, 94 from row to row.
    assert sheet.size == (3 * 72 + 12, 2 * 94 + 46)
    places = [(12, 46), (84, 46), (156, 46), (12, 140)]
    for (left, top), colour in zip(places, COLOURS, strict=True):
        middle = pixels[top + 30, left + 30]
        assert tuple(middle) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    dark = (pixels.sum(-1) < 200).sum(1)
    assert dark[106:128].sum() > 20  # the lines below the first row


@pytest.mark.parametrize("size", [(500, 10), (10, 500), (1, 1)])
def test_contact_sheet_takes_any_shape(size: tuple[int, int]) -> None:
    sheet = contact_sheet([picture("red", size)], ["x" * 200], title="y" * 500, side=100)
    assert sheet.size == (124, 180)


def test_a_notebook_shows_what_was_kept() -> None:
    chosen = selection()
    html = chosen._repr_html_()
    assert html.count("<img ") == len(chosen.kept)
    for place, index in enumerate(chosen.kept, start=1):
        one = chosen.candidates[index]
        assert f"{place}: {one.score:.4f}, seed {one.seed}" in html


def test_candidates_as_a_data_frame() -> None:
    chosen = selection()
    frame = chosen.to_pandas()
    assert list(frame["seed"]) == chosen.seeds
    assert list(frame.index[frame["kept"]]) == sorted(chosen.kept)
    assert frame["score"].isna().tolist() == np.isnan(chosen.scores).tolist()
