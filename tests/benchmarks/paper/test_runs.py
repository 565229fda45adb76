"""Table 6 and Figures 5 and 6 out of runs, and out of the laboratory's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.brightness import Brightness
from helpers.made_scores import made_table
from helpers.paper_case import MODELS, cells, paper
from PIL import Image

from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.prompt_sets import HPDV2_STYLES
from stablepref.benchmarks.bench.score_table import ScoreTable
from stablepref.benchmarks.cli import paper as command
from stablepref.benchmarks.paper.drawn import RUN, drawn_run
from stablepref.benchmarks.paper.figure5 import figure5
from stablepref.benchmarks.paper.figure6 import first_choice
from stablepref.benchmarks.paper.table import Ours, PaperTable
from stablepref.benchmarks.paper.table6 import table6
from stablepref.benchmarks.shapes.people import generators

LAB = "on the laboratory, not the paper's data"


def styles(count: int = 800) -> list[dict[str, str]]:
    return [{"style": style} for style in HPDV2_STYLES for _ in range(count)]


def rows_of(table: PaperTable) -> dict[str, list[Ours | str]]:
    return {row.labels[0]: [cell.ours for cell in row.cells] for row in table.rows}


def named(table: ScoreTable, name: str) -> ScoreTable:
    return replace(table, name=name)


def test_table_6_of_runs_by_the_official_protocol() -> None:
    rng = np.random.default_rng(0)
    scores = {"glide": rng.normal(25, 1, 3200), "mine": rng.normal(26, 1, 3200)}
    hpdv2 = named(made_table(scores, labels=styles(), scorer="sp-clip-h-hps"), "hpdv2")
    draw = {"glide": np.full((200, 2), 25.5), "sd14": np.arange(400.0).reshape(200, 2)}
    drawbench = named(made_table(draw, scorer="sp-clip-h-hps"), "drawbench")
    table = table6([hpdv2, drawbench], names={"Stable Diffusion v1.4": "sd14"})
    assert table.title == "Table 6: text-to-image models by the score of sp-clip-h-hps"
    assert not table.laboratory
    assert tuple(row.labels[0] for row in table.rows) == (*MODELS, "mine")
    found = rows_of(table)
    # Photo stands last in HPD v2's files and first in the paper's table.
    photo = scores["glide"][2400:].reshape(10, 80).mean(axis=1)
    first, *_, last = found["GLIDE"]
    assert isinstance(first, Ours)
    assert first.value == pytest.approx(photo.mean())
    assert first.deviation == pytest.approx(photo.std())
    assert isinstance(last, Ours)
    assert last.value == 25.5
    assert found["Stable Diffusion v1.4"][0] == "no run has these prompts"
    mean = found["Stable Diffusion v1.4"][4]
    assert isinstance(mean, Ours)
    assert mean.value == pytest.approx(199.5)
    assert found["LAFITE"] == ["no run has images of it"] * 5
    assert table.rows[-1].cells[0].published is None
    assert "| GLIDE | paper | 25.03±0.245 |" in table.markdown()


def test_table_6_of_other_scorers_and_prompts() -> None:
    scores = {"glide": np.full(200, 1.0)}
    drawbench = named(made_table(scores, scorer="hps-v2"), "drawbench")
    assert "not of the paper's model" in table6([drawbench]).title
    shapes = table6([named(made_table(scores, scorer="shapes"), "drawbench")])
    assert shapes.title.endswith(LAB)
    with pytest.raises(ValueError, match="a run has 200 prompts of made-up"):
        table6([made_table(scores)])
    with pytest.raises(ValueError, match="glide has images for DrawBench in two of the runs"):
        table6([drawbench, drawbench])
    with pytest.raises(ValueError, match="--scorer nobody: not all runs have it; all have: hps-v2"):
        table6([drawbench], scorer="nobody")
    with pytest.raises(ValueError, match="no run has a model 'x'; the runs have: glide"):
        table6([drawbench], names={"GLIDE": "x"})


def two_scorers(table: ScoreTable, other: np.ndarray) -> ScoreTable:
    return replace(
        table,
        scorers={**table.scorers, "other": {"unit": "points"}},
        scores=np.concatenate([table.scores, other[:, None, :, None]], axis=1),
    )


def test_figure_5_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = made_table({"a": [1.0, 3.0], "b": [4.0, 4.0], "c": [2.0, 4.0]})  # means 2, 4, 3
    table = two_scorers(made, np.array([[1.0, 1.0], [2.0, 4.0], [np.nan, 3.0]]))  # 1, 3, 3
    found = figure5(table, picture=tmp_path / "f.png")
    # Without the image that has no score, the means are 2, 4, 4 and 1, 3, 3.
    assert rows_of(found) == {"made-up": [Ours(1.0), Ours(1.0)]}
    assert found.notes[1].startswith("means over the 5 images")
    assert not found.laboratory
    assert Image.open(tmp_path / "f.png").width > 300
    swapped = figure5(table, scorers=["other", "made-up"])
    assert swapped.rows[0].labels == ("other", "made-up")
    with pytest.raises(ValueError, match="a correlation needs two scorers, got only made-up"):
        figure5(made)


def test_first_choices_by_hand() -> None:
    choice = first_choice(np.array([np.nan, 2.0, 3.0, 3.0]))
    assert (choice.image, choice.score, choice.ties, choice.count) == (2, 3.0, 1, 3)
    assert first_choice(np.array([np.nan, np.nan])).image is None


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the laboratory's generators by two scorers that see brightness alone."""
    out = tmp_path_factory.mktemp("drawn")
    judges = [ModelJudge(Brightness(), name="bright"), ModelJudge(Brightness(-1.0), name="dark")]
    drawn_run(out, judges, generators=["level-3", "level-9"], prompts=2, images=4)
    return out


def test_figure_6_shows_each_scorers_first_choice(drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = paper("figure6", "--run", drawn / RUN, "--size", 1, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["title"].endswith(LAB)  # its prompts are
    assert len(found["rows"]) == 2  # one prompt of two models
    for row in found["rows"]:
        names = ["00000.png", *(f"00000-{number}.png" for number in (1, 2, 3))]
        folder = drawn / "drawn" / row["model"]
        light = [np.asarray(Image.open(folder / name)).mean() for name in names]
        bright, dark = (cell["ours"]["note"] for cell in row["cells"])
        assert bright.startswith(f"image {int(np.argmax(light))} of 4")
        assert dark.startswith(f"image {int(np.argmin(light))} of 4")
    assert Image.open(tmp_path / "figure6.png").height > 300
    one = paper("figure6", "--run", drawn / RUN, "--scorer", "dark", "--out", tmp_path, "--json")
    assert [len(row["cells"]) for row in json.loads(one.stdout)["rows"]] == [1] * 4


def test_drawn_pictures_stay_and_are_those_of_their_names(drawn: Path, tmp_path: Path) -> None:
    judges = [ModelJudge(Brightness(), name="bright")]
    again = drawn_run(tmp_path, judges, generators=["level-9"], prompts=1, images=2)
    first, second = (tmp_path / "drawn/level-9" / f"{name}.png" for name in ("00000", "00000-1"))
    assert first.read_bytes() == (drawn / "drawn" / "level-9" / "00000.png").read_bytes()
    assert first.read_bytes() != second.read_bytes()
    before = second.stat().st_mtime_ns
    first.unlink()
    drawn_run(tmp_path, judges, generators=["level-9"], prompts=1, images=2)
    assert first.is_file()
    assert second.stat().st_mtime_ns == before
    assert again.name == "lab"


def test_the_laboratory_fills_figures_and_table_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "CANDIDATES", 2)
    monkeypatch.setattr(generators, "GENERATORS", {"level-2": None, "level-9": None})
    for item, titled in (
        ("table6", "Table 6: text-to-image models by the score of shapes"),
        ("figure5", "Figure 5: correlation between scorers, of models' mean scores on 2 prompts"),
        ("figure6", "Figure 6: first choice of each scorer among 2 images"),
    ):
        done = paper(item, "--size", 2, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "using a run in the laboratory instead" in done.stderr
        found = json.loads((tmp_path / f"{item}.json").read_text())
        assert found["title"].startswith(titled)
        assert found["title"].endswith(LAB)
        assert found["laboratory"]
        assert f"{item} needs" in done.stderr
    sixth = cells((tmp_path / "table6.json").read_text())
    assert list(sixth) == [*MODELS, "level-2", "level-9"]
    assert sixth["level-9"][4]["published"] is None
