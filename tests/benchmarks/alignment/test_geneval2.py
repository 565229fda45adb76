"""GenEval 2: reading its file, what is asked, and Soft-TIFA by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from stablepref.benchmarks.alignment.geneval2 import (
    Prompt,
    geometric_mean,
    questions_of,
    read_geneval2,
    soft_tifa,
    spellings,
)
from stablepref.data.groups import DataError

ROW = {
    "prompt": "three red kites above a lake",
    "atom_count": 3,
    "vqa_list": [
        ["How many kites are there?", "three"],
        ["Are the kites red?", "Yes"],
        ["Are the kites above the lake?", "Yes"],
        ["How many lakes are there?", "one"],  # of "a": asked, and no atom
    ],
    "skills": ["count", "attribute", "position", "count"],
}


def write(folder: Path, *rows: object) -> Path:
    path = folder / "geneval2_data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reading(tmp_path: Path) -> None:
    (one,) = read_geneval2(write(tmp_path, ROW))
    assert (one.prompt, one.atoms, len(one.questions)) == (ROW["prompt"], 3, 4)
    assert one.skills == ("count", "attribute", "position", "count")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"atom_count": "3"}, "atom_count is '3'"),
        ({"vqa_list": [["Why?"]]}, "a list of .question, answer."),
        ({"skills": ["count"]}, "1 skills for 4 questions"),
        ({"prompt": " "}, "prompt is ' '"),
        ({"vqa_list": [["How many?", "many"]], "skills": ["count"]}, "number up to twenty"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = write(tmp_path, ROW, ROW | {"prompt": "b"} | change)
    with pytest.raises(DataError, match=rf"line 2.*{reason}"):
        read_geneval2(path)


def test_a_prompt_that_occurs_twice_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stands there already"):
        read_geneval2(write(tmp_path, ROW, ROW))


def test_accepted_forms() -> None:
    assert spellings("three", "count") == ("three", "Three", " three", " Three", "3", " 3")
    assert spellings("10", "count") == ("ten", "Ten", " ten", " Ten", "10", " 10")
    assert set(spellings("Yes", "object")) == {"Yes", "yes", " yes", " Yes"}


def test_questions(tmp_path: Path) -> None:
    (one,) = read_geneval2(write(tmp_path, ROW))
    asked = questions_of(one, published=False)
    assert asked[1].text == "Are the kites red? Answer in one word."
    assert {question.reading for question in asked} == {"whole"}
    published = questions_of(one, published=True)
    assert {question.reading for question in published} == {"first-each"}


def test_soft_tifa_by_hand() -> None:
    skills = ("object", "count")
    prompts = [
        Prompt("a", 2, (("?", "Yes"), ("?", "two")), skills),
        Prompt("b", 3, (("?", "Yes"), ("?", "two")), skills),
        Prompt("c", 3, (("?", "Yes"), ("?", "two")), skills),
        Prompt("d", 3, (("?", "Yes"), ("?", "two")), skills),
    ]
    found = soft_tifa(prompts, [[0.9, 0.4], [1.0, 0.0], None, [0.5, 0.5]])
    assert found.prompts == 3  # the third image was not scored
    assert found.am.value == pytest.approx(100 * (0.65 + 0.5 + 0.5) / 3)
    assert found.gm.value == pytest.approx(100 * (0.6 + 0.0 + 0.5) / 3)  # sqrt(.9 x .4) = .6
    assert found.skills["object"][0].value == pytest.approx(100 * (0.9 + 1.0 + 0.5) / 3)
    assert found.skills["count"][0].value == pytest.approx(100 * (0.4 + 0.0 + 0.5) / 3)
    assert found.skills["count"][1] == 3
    assert found.atoms[2][0].value == pytest.approx(60)
    assert found.atoms[3][0].value == pytest.approx(25)  # 0 and 50
    assert found.atoms[3][1] == 2
    with pytest.raises(ValueError, match="no image could be scored"):
        soft_tifa(prompts, [None] * 4)


def test_skills_count_atoms_and_not_prompts() -> None:
    prompts = [
        Prompt("a", 3, (("?", "Yes"),) * 3, ("object",) * 3),
        Prompt("b", 1, (("?", "Yes"),), ("object",)),
    ]
    found = soft_tifa(prompts, [[0.0, 0.0, 0.0], [1.0]])
    assert found.skills["object"][0].value == pytest.approx(25)
    assert found.am.value == pytest.approx(50)


def test_intervals_are_those_of_resampled_prompts() -> None:
    values = [0.1, 0.4, 0.45, 0.8, 0.9, 0.2, 0.65, 0.7]
    prompts = [Prompt(str(n), 1, (("?", "Yes"),), ("object",)) for n in range(len(values))]
    found = soft_tifa(prompts, [[value] for value in values])
    draws = np.random.default_rng(1).choice(values, (4000, len(values))).mean(axis=1)
    assert found.am.low == pytest.approx(100 * np.quantile(draws, 0.025), abs=2.0)
    assert found.am.high == pytest.approx(100 * np.quantile(draws, 0.975), abs=2.0)


def test_geometric_mean() -> None:
    assert geometric_mean([0.25, 1.0]) == pytest.approx(0.5)
    assert geometric_mean([0.0, 1.0]) == 0.0
    assert geometric_mean([1e-30] * 50) == pytest.approx(1e-30)  # a product would underflow
    assert math.isclose(geometric_mean([0.3]), 0.3)
