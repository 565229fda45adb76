"""TIFA: reading its file, what is asked, and the score by hand."""

import json
import statistics
from pathlib import Path

import pytest

from stablepref.benchmarks.alignment.tifa import (
    is_right,
    questions_of,
    read_tifa,
    tifa_score,
)
from stablepref.data.groups import DataError


def row(
    key: object, answer: str, kind: str, choices: list[str], **more: object
) -> dict[str, object]:
    return {
        "id": key,
        "caption": f"caption {key}",
        "question": f"what of {answer}?",
        "choices": choices,
        "answer": answer,
        "element_type": kind,
        "element": answer,
        "coco_val_id": None,
    }


ROWS = [
    row("drawbench_1", "red", "color", ["red", "blue", "green", "pink"]),
    row("drawbench_1", "yes", "object", ["yes", "no"]),
    row(7, "two", "counting", ["one", "two", "three", "four"]),
]


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "questions.json"
    path.write_text(json.dumps(rows))
    return path


def test_reading_groups_by_caption(tmp_path: Path) -> None:
    first, second = read_tifa(write(tmp_path, ROWS))
    assert (first.id, first.caption, len(first.questions)) == (
        "drawbench_1",
        "caption drawbench_1",
        2,
    )
    assert (second.id, second.questions[0].type) == ("7", "counting")
    (asked, _) = questions_of(first)
    assert "Choices: red, blue, green, pink." in asked.text
    assert asked.options[0] == ("red", "Red")
    assert len(asked.options) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "grey"}, "'grey' is not one of the choices"),
        ({"choices": ["red"]}, "two or more"),
        ({"caption": "another"}, "has the caption 'another'"),
        ({"id": None}, "id is None"),
        ({"element_type": ""}, "element_type is ''"),
    ],
)
def test_faults_name_the_entry(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = write(tmp_path, [ROWS[0], ROWS[0] | change])
    with pytest.raises(DataError, match=rf"entry 2.*{reason}"):
        read_tifa(path)


def test_the_most_probable_choice_is_the_answer(tmp_path: Path) -> None:
    first, _ = read_tifa(write(tmp_path, ROWS))
    assert is_right(first.questions[0], [0.4, 0.3, 0.2, 0.1])
    assert not is_right(first.questions[0], [0.1, 0.3, 0.2, 0.1])


def test_the_score_by_hand(tmp_path: Path) -> None:
    third = row(8, "yes", "object", ["yes", "no"])
    captions = read_tifa(write(tmp_path, [*ROWS, third]))
    found = tifa_score(captions, [[True, False], [True], None])
    assert found.captions == 2
    assert found.score.value == pytest.approx((0.5 + 1.0) / 2)
    assert found.deviation == pytest.approx(statistics.stdev([0.5, 1.0]))
    assert {name: (own.value, n) for name, (own, n) in found.types.items()} == {
        "color": (1.0, 1),
        "object": (0.0, 1),
        "counting": (1.0, 1),
    }
    with pytest.raises(ValueError, match="no image could be scored"):
        tifa_score(captions, [None, None, None])
