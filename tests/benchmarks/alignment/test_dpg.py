"""DPG-Bench: reading its table, grids of pictures, and the score by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablepref.benchmarks.alignment.dpg import (
    cut,
    dpg_score,
    is_yes,
    questions_of,
    read_dpg,
    without_orphans,
)
from stablepref.data.groups import DataError

HEAD = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)
ROWS = (
    "p1,a dog by a car,,1,0,entity,whole,entity - whole (dog),Is there a dog?\n"
    'p1,a dog by a car,,2,1,attribute,color,"attribute - color (dog, brown)",Is the dog brown?\n'
    'p1,a dog by a car,,3,"1,4",relation,spatial,"relation - spatial (dog, car)",Is it by it?\n'
    "p1,a dog by a car,,4,0,entity,whole,entity - whole (car),Is there a car?\n"
    "p2,candles,,1,0,entity,whole,entity - whole (candles),Are there candles?\n"
)


def write(folder: Path, rows: str = ROWS) -> Path:
    path = folder / "dpg_bench.csv"
    path.write_text(HEAD + rows)
    return path


def test_reading(tmp_path: Path) -> None:
    first, second = read_dpg(write(tmp_path))
    assert (first.id, first.prompt) == ("p1", "a dog by a car")
    assert [one.parents for one in first.propositions] == [(), (1,), (1, 4), ()]
    assert [one.category for one in first.propositions][1:3] == [
        "attribute - color",
        "relation - spatial",
    ]
    assert first.propositions[1].broad == "attribute"
    assert len(second.propositions) == 1
    assert questions_of(second)[0].text == "Are there candles? Answer yes or no."


def test_the_cases_that_people_hold(shared_data: Path) -> None:
    items = read_dpg(shared_data / "cases" / "dpg_like.csv")
    assert len(items) == 2
    assert sum(len(one.propositions) for one in items) == 5


def test_the_published_code_leaves_out_the_first_row(tmp_path: Path) -> None:
    first, _ = read_dpg(write(tmp_path), published=True)
    assert [one.number for one in first.propositions] == [2, 3, 4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("p2,c,,1,0,a,b,c (d),again?\n", "line 7.*has the proposition 1 already"),
        ("p2,c,,2,9,a,b,c (d),why?\n", "line 7.*depends on 9, which is not there"),
        ("p2,c,,2,2,a,b,c (d),why?\n", "line 7.*depends on itself"),
        ("p2,c,,x,0,a,b,c (d),why?\n", "line 7.*expected whole numbers"),
        ("p2,c,,2,0,a,b,,why?\n", "line 7.*tuple is"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_dpg(write(tmp_path, ROWS + row))


def test_circles_are_refused(tmp_path: Path) -> None:
    rows = "p,c,,1,2,a,b,c (d),one?\np,c,,2,1,a,b,c (d),two?\n"
    with pytest.raises(DataError, match="depends on itself"):
        read_dpg(write(tmp_path, rows))


def test_children_of_no_count_as_no(tmp_path: Path) -> None:
    first, _ = read_dpg(write(tmp_path))
    assert without_orphans(first, [False, True, True, True]) == [False, False, False, True]
    # The parent 4 stands after its child, and counts nevertheless.
    assert without_orphans(first, [True, True, True, False]) == [True, True, False, False]
    chain = "p,c,,1,0,a,b,c (d),1?\np,c,,2,1,a,b,c (d),2?\np,c,,3,2,a,b,c (d),3?\n"
    (one,) = read_dpg(write(tmp_path, chain))
    assert without_orphans(one, [False, True, True]) == [False, False, False]


def test_the_score_by_hand(tmp_path: Path) -> None:
    items = read_dpg(write(tmp_path))
    yes = [
        [[True, True, True, True], [False, True, False, True]],  # two pictures of p1
        [[True], [False]],
    ]
    found = dpg_score(items, yes)
    assert found.items == 2
    # p1: 4 of 4, then 1 of 4 as the dog's colour does not count; p2: 1 and 0.
    assert found.score.value == pytest.approx(100 * ((1 + 0.25) / 2 + 0.5) / 2)
    assert found.categories["attribute - color"][0].value == pytest.approx(50)
    assert found.broad["entity"][0].value == pytest.approx(100 * (1 + 1 + 0 + 1 + 1 + 0) / 6)
    # As published: the last picture alone, and the colour of the dog that is not there is yes.
    published = dpg_score(items, yes, published=True)
    assert published.score == found.score
    assert published.categories["attribute - color"][0].value == pytest.approx(100)
    assert published.broad["entity"][0].value == pytest.approx(100 * (0 + 1 + 0) / 3)
    with pytest.raises(ValueError, match="no image could be scored"):
        dpg_score(items, [None, None])


def test_the_pictures_of_a_grid() -> None:
    levels = np.zeros((4, 6, 3), dtype=np.uint8)
    levels[:2, 3:], levels[2:, :3], levels[2:, 3:] = 1, 2, 3
    grid = Image.fromarray(levels)
    for place in range(4):
        picture = np.asarray(cut(grid, place, 4))
        assert picture.shape == (2, 3, 3)
        assert (picture == place).all()
    assert cut(grid, 0, 1) is grid
    with pytest.raises(ValueError, match="no grid"):
        cut(Image.new("RGB", (5, 4)), 0, 4)


def test_yes_is_what_is_more_probable() -> None:
    assert is_yes([0.2, 0.1])
    assert not is_yes([0.1, 0.1])
