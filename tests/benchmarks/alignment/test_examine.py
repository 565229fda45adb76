"""A whole run: images found, answers kept and resumed, failures listed, files written."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.commandline import run
from helpers.tiny_vlm import save_qwen
from PIL import Image

from stablepref.benchmarks.alignment.benchmarks import Dpg, GenEval2, Tifa
from stablepref.benchmarks.alignment.examine import examine
from stablepref.benchmarks.alignment.judge import Question, load_judge
from stablepref.benchmarks.alignment.sources import parse_sources
from stablepref.data.groups import DataError
from stablepref.output.partial import ResumeError

PROMPTS = ("three red kites", "a lake", "a dog")


class Levels:
    """A judge whose answer is the picture's red level, and that counts what it is asked."""

    name = "levels"

    def __init__(self, weights: str = "a") -> None:
        self.asked = 0
        self.weights = weights

    def settings(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def __call__(
        self, image: Image.Image, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        self.asked += 1
        red = image.getpixel((0, 0))[0] / 100  # type: ignore[index]
        return [(red, *[(1 - red) / 10 for _ in one.options[1:]]) for one in questions]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "geneval2_data.jsonl"
    rows = [
        {
            "prompt": prompt,
            "atom_count": 3 + place,
            "vqa_list": [["Is it?", "Yes"], ["How many?", "two"]],
            "skills": ["object", "count"],
        }
        for place, prompt in enumerate(PROMPTS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def paint(folder: Path, levels: Sequence[int], names: Sequence[str]) -> Path:
    folder.mkdir()
    for level, name in zip(levels, names, strict=True):
        Image.new("RGB", (4, 4), (level, 0, 0)).save(folder / f"{name}.png")
    return folder


def test_a_run_is_written_resumed_and_retried(tmp_path: Path, data: Path) -> None:
    folder = paint(tmp_path / "a", (50, 80), ("00000", "00002"))
    paths = tmp_path / "paths.json"
    paths.write_text(
        json.dumps({p: f"a/{n}.png" for p, n in zip(PROMPTS[:2], ("00000", "00002"), strict=True)})
    )
    sources = parse_sources([f"a={folder}", f"by-prompt={paths}"])
    benchmark, out = GenEval2.read(data, published=False), tmp_path / "out"
    judge = Levels()
    first = examine(benchmark, sources, judge, data=data, out=out, scenes=0)
    numbers = {one.measure: one.interval.value for one in first.models["a"]}
    assert numbers["Soft-TIFA AM"] == pytest.approx(65)
    assert [(m, k) for m, k, _ in first.failures] == [("a", "00001"), ("by-prompt", "00002")]
    assert (first.examined, judge.asked) == (4, 4)
    written = json.loads((out / "results.json").read_text())
    assert written == json.loads(json.dumps(first.as_dict()))
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert {row["model"] for row in rows} == {"a", "by-prompt"}
    # What failed is tried again, and nothing else.
    Image.new("RGB", (4, 4), (20, 0, 0)).save(folder / "00001.png")
    second = examine(benchmark, sources, judge, data=data, out=out, scenes=0)
    assert judge.asked == 5
    by_name = {one.measure: one.interval.value for one in second.models["a"]}
    assert by_name["Soft-TIFA AM"] == pytest.approx(50)
    with pytest.raises(ResumeError):
        examine(benchmark, sources, Levels("b"), data=data, out=out, scenes=0)
    published = GenEval2.read(data, published=True)
    with pytest.raises(ResumeError):
        examine(published, sources, judge, data=data, out=out, scenes=0)


def test_answers_from_elsewhere_are_checked(tmp_path: Path, data: Path) -> None:
    folder = paint(tmp_path / "a", (50, 60, 70), ("00000", "00001", "00002"))
    sources, out = parse_sources([str(folder)]), tmp_path / "out"
    benchmark = GenEval2.read(data, published=False)
    examine(benchmark, sources, Levels(), data=data, out=out, scenes=0)
    (file,) = (out / "answers").glob("*.jsonl")
    file.write_text(file.read_text().replace("[[0.5], [0.5]]", "[[0.5]]"))
    with pytest.raises(ResumeError, match=r"line 2.*not those to its questions"):
        examine(benchmark, sources, Levels(), data=data, out=out, scenes=0)


def test_the_judges_errors_stand_beside_its_scores(tmp_path: Path, data: Path) -> None:
    folder = paint(tmp_path / "a", (50, 60, 70), ("00000", "00001", "00002"))
    found = examine(
        GenEval2.read(data, published=True),
        parse_sources([str(folder)]),
        Levels(),
        data=data,
        out=tmp_path / "out",
        scenes=3,
    )
    assert found.errors is not None
    assert "wrong answers about drawn scenes" in found.markdown()
    assert "said Yes, true is No" in (tmp_path / "out" / "results.md").read_text()


def test_grids_of_dpg(tmp_path: Path) -> None:
    table = tmp_path / "dpg_bench.csv"
    table.write_text(
        "item_id,text,dependency,proposition_id,tuple,question_natural_language\n"
        "p1,a dog,0,1,entity - whole (dog),Is there a dog?\n"
        "p2,a car,0,1,entity - whole (car),Is there a car?\n"
    )
    grid = Image.new("RGB", (4, 4), (90, 0, 0))
    grid.paste((0, 0, 0), (0, 0, 2, 2))
    (tmp_path / "a").mkdir()
    for name in ("p1", "p2"):
        grid.save(tmp_path / "a" / f"{name}.png")
    benchmark = Dpg.read(table, pictures=4, published=False)
    sources = parse_sources([str(tmp_path / "a")])
    found = examine(benchmark, sources, Levels(), data=table, out=tmp_path / "out", scenes=0)
    score = {one.measure: one.interval.value for one in found.models["a"]}
    assert score["DPG-Bench"] == pytest.approx(75)


def test_paths_by_id_for_tifa(tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    common = {"caption": "a dog", "question": "a dog?", "element_type": "animal", "element": "dog"}
    questions.write_text(
        json.dumps([common | {"id": 5, "choices": ["yes", "no"], "answer": "yes"}])
    )
    paint(tmp_path / "a", (90,), ("dog",))
    paths = tmp_path / "a" / "images.json"
    paths.write_text(json.dumps({"5": "dog.png"}))
    found = examine(
        Tifa.read(questions),
        parse_sources([str(paths)]),
        Levels(),
        data=questions,
        out=tmp_path / "out",
        scenes=0,
    )
    assert {one.measure: one.interval.value for one in found.models["images"]}["TIFA"] == 100


def test_sources_are_checked(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        parse_sources(["a=nowhere"])
    folder = paint(tmp_path / "a", (50,), ("00000",))
    with pytest.raises(ValueError, match="two sources"):
        parse_sources([str(folder), str(folder)])
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({PROMPTS[0]: 3}))
    benchmark, sources = GenEval2.read(data, published=False), parse_sources([str(wrong)])
    with pytest.raises(DataError, match="expected a path"):
        examine(benchmark, sources, Levels(), data=data, out=tmp_path / "o", scenes=0)
    wrong.write_text(json.dumps({"other": "a.png"}))
    with pytest.raises(ValueError, match="no image for any prompt"):
        examine(benchmark, sources, Levels(), data=data, out=tmp_path / "o", scenes=0)


def test_a_scorer_that_answers_no_questions_is_no_judge() -> None:
    with pytest.raises(ValueError, match="written vqa:MODEL"):
        load_judge("shapes")


def test_the_command_with_a_tiny_model(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("transformers", minversion="5.0")
    model = save_qwen(tmp_path / "model")
    folder = paint(tmp_path / "a", (50, 200), ("00000", "00002"))
    done = run(
        *("bench", "geneval2", data, "--images", folder, "--judge", f"vqa:{model},form=geneval2"),
        *("--out", tmp_path / "out", "--scenes", 2, "--published", "--json", "--dtype", "float32"),
    )
    assert done.returncode == 1, done.stderr  # an image is missing
    assert "1 of 3 could not be scored" in done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["measure"] for row in found["models"]["a"]} >= {"Soft-TIFA AM", "Soft-TIFA GM"}
    assert all(0 <= row["value"] <= 200 for row in found["models"]["a"])
    assert found["judge_errors"][0]["questions"] > 4


def test_what_the_command_refuses(tmp_path: Path, data: Path) -> None:
    done = run("bench", "geneval2", data, "--images", tmp_path, "--judge", "hps-v2.1", "--out", "o")
    assert done.returncode == 2
    assert "vqa:MODEL" in done.stderr
    done = run("bench", "tifa", data, "--judge", "vqa:m", "--out", tmp_path / "o")
    assert "expected --images" in done.stderr
