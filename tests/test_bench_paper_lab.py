"""The paper's tables and figures in the laboratory, out of ablations, and out of runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brightness import Brightness
from made_scores import made_table
from PIL import Image
from stablepref.benchmarks.bench import paper as command
from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.paper_ablations import Ablations
from stablepref.benchmarks.bench.paper_benchmark import table6
from stablepref.benchmarks.bench.paper_choices import first_choice
from stablepref.benchmarks.bench.paper_drawn import RUN, drawn_run
from stablepref.benchmarks.bench.paper_methods import Trained
from stablepref.benchmarks.bench.paper_scorers import figure5
from stablepref.benchmarks.bench.paper_table import Ours, PaperTable
from stablepref.benchmarks.bench.prompt_sets import HPDV2_STYLES
from stablepref.benchmarks.bench.score_table import ScoreTable
from stablepref.benchmarks.shapes.ablation_cells import Cell, Store, mean_values
from stablepref.benchmarks.shapes.ablation_methods import METHODS, method_config
from stablepref.benchmarks.shapes.ablation_suite import Suite
from test_bench_paper import MODELS, ROWS, TABLE_1_LINES, paper
from test_bench_paper_real import cells

from stablepref.groupmean import GroupMean

LAB = "on the laboratory, not the paper's data"
STOP = 100


def measure(share: float) -> dict[str, list[float]]:
    """The same share of the 20 pairs of each of four prompts."""
    return mean_values(GroupMean(np.full(4, 20 * share), np.full(4, 20.0)))


def train(store: Store, size: str, method: str, setting: str, seed: int, share: float) -> None:
    """A made-up training: `share` on its own data, 0.1 less on the other, 0.02 less disturbed."""
    start = method == "start"
    config = method_config(
        METHODS["ce" if start else method], rate=1e-4, margins=(1.0, 0.7), steps=200,
        batch_size=8, seed=seed, image_blocks=1, text_blocks=1,
    )  # fmt: skip
    stop = 0 if start else STOP
    ends = (0,) if start else (STOP, 200)
    robust = size == "large"
    cell = Cell(size, setting, config, tested=ends, disturbed=(stop,) * robust)  # type: ignore[arg-type] # one of its literals

    def tests(value: float) -> dict[str, object]:
        return {
            name: {"people": measure(value if name == setting else value - 0.1),
                   "oracle": measure(0.99)}
            for name in ("hpdv2", "imagereward")
        }  # fmt: skip

    names = ("crop-0.97", "crop-0.95", "crop-0.93", "crop-0.9")
    changed = {name: {"people": measure(share - 0.02)} for name in names}
    found = {
        "watched": [],
        "tested": {str(step): tests(share if step == stop else 0.5) for step in ends},
        "disturbed": {str(stop): changed} if robust else {},
        "seconds": 1.0,
    }
    store.write(cell, found)


@pytest.fixture(scope="module")
def ablations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up results of some trainings."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "cells").mkdir()
    store = Store(folder / "cells", Suite(), {"small": "a", "large": "b"})
    for seed, share in enumerate((0.7, 0.8)):
        train(store, "large", "sp", "imagereward", seed, share)
    train(store, "large", "start", "imagereward", 0, 0.6)
    train(store, "small", "sp", "imagereward", 0, 0.65)
    train(store, "small", "ce", "imagereward", 0, 0.62)
    train(store, "large", "ce", "hpdv2", 0, 0.75)
    train(store, "large", "sp-uniform", "imagereward", 0, 0.66)
    # One that only tunes, and one far past the optimum, are in no table.
    tuning = method_config(
        METHODS["sp"], rate=1e-3, margins=(1.0, 0.7), steps=200, batch_size=8, seed=0,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    nothing = {"watched": [], "tested": {}, "disturbed": {}}
    store.write(Cell("large", "imagereward", tuning, watched=(50,)), nothing)
    long = replace(tuning, steps=800, order_steps=80, warmup_steps=40)
    store.write(Cell("large", "imagereward", long, tested=(0, 400, 800)), nothing)
    return folder


def ours(text: str) -> dict[str, list[float | None]]:
    """Values by what stands before them; None where there is a reason."""
    return {
        name: [None if cell["ours"] is None else round(cell["ours"]["value"], 6) for cell in row]  # type: ignore[index] # JSON
        for name, row in cells(text).items()
    }


def test_table_4_of_the_bundled_model_and_simulated_people(tmp_path: Path) -> None:
    done = paper("table4", "--size", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Table 4: agreement with people on ImageReward, {LAB}")
    found = json.loads((tmp_path / "table4.json").read_text())
    assert found["laboratory"]
    rows = cells((tmp_path / "table4.json").read_text())
    assert [f"{name}|{row[0]['printed']}" for name, row in rows.items()] == ROWS[
        "table4"
    ].splitlines()
    filled = [name for name, (row,) in rows.items() if row["ours"] is not None]
    assert filled == ["CLIP-H", "Single Human vs. Single Human", "Single Human vs. Averaged Human"]
    why = {name: row[0]["why_not"] for name, row in rows.items()}
    assert why["HPS v1"] == "the laboratory has no such model"
    assert "--ablations FOLDER" in str(why["Stable Preference (CLIP-H)"])
    assert any("human preference" in note for note in found["notes"])
    # It states what the paper's own numbers need.
    assert "hf:THUDM/ImageRewardDB" in done.stderr
    assert "get hpc.pt from" in done.stderr


def test_ablations_fill_the_rows_that_they_have(ablations: Path) -> None:
    done = paper("table4", "--ablations", ablations, "--size", 1, "--json")
    assert done.returncode == 0, done.stderr
    found = ours(done.stdout)
    assert found["Stable Preference (CLIP-H)"] == [75.0]  # the mean of two seeds
    assert found["Stable Preference (CLIP-L)"] == [65.0]
    assert found["CLIP-H"] == [60.0]
    assert found["HPS v2"] == [65.0]  # trained on the other data
    rows = cells(done.stdout)
    assert "has no such training" in str(rows["CLIP-L"][0]["why_not"])
    assert rows["Stable Preference (CLIP-H†)"][0]["why_not"] == "the laboratory has no such model"
    note = rows["Stable Preference (CLIP-H)"][0]["ours"]["note"]  # type: ignore[index] # JSON
    assert note.endswith("Stable Preference, trained on its imagereward: 2 seeds")


def test_table_5_is_across_data_and_table_3_on_both(ablations: Path) -> None:
    found = ours(paper("table5", "--ablations", ablations, "--size", 1, "--json").stdout)
    assert found["Stable Preference (CLIP-H)"] == [65.0]
    assert found["CLIP-L"] == [52.0]
    assert found["CLIP-H"] == found["BLIP"] == [None]
    third = ours(paper("table3", "--ablations", ablations, "--size", 1, "--json").stdout)
    assert list(third.values()) == [[None, None], [56.0, 66.0], [65.0, 75.0]]


def test_table_1_has_what_was_disturbed(ablations: Path) -> None:
    done = paper("table1", "--ablations", ablations, "--size", 1, "--json")
    found = ours(done.stdout)
    assert list(found) == ["|".join(line.split("|")[:2]) for line in TABLE_1_LINES]
    assert found["SP (CLIP-H)|ImageReward"] == [75.0, 73.0, 73.0, 73.0, 73.0]
    assert found["HPS v2|HPD v2"] == [75.0, 73.0, 73.0, 73.0, 73.0]
    assert found["SP (CLIP-H)|HPD v2"] == [65.0, None, None, None, None]
    assert found["ImageReward|HPD v2"] == [None] * 5
    cell = cells(done.stdout)["SP (CLIP-H)|ImageReward"][1]["ours"]
    bounds = [cell[name] for name in ("change", "change_low", "change_high")]  # type: ignore[index] # JSON
    assert bounds == pytest.approx([-2, -2, -2])
    assert "without the flips" in done.stdout


def test_two_runs_in_one_folder_are_not_mixed(ablations: Path, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for path in (ablations / "cells").iterdir():
        (tmp_path / "cells" / path.name).write_text(path.read_text())
    store = Store(tmp_path / "cells", Suite(), {"small": "a", "large": "other"})
    train(store, "large", "sp", "imagereward", 0, 0.9)
    found = Ablations(tmp_path).accuracy(Trained("large", "sp"), "imagereward")
    assert "several runs" in str(found)
    (tmp_path / "cells" / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json is no training of the ablations"):
        Ablations(tmp_path)


# Runs of benchmarks.


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
    with pytest.raises(ValueError, match="--scorer nobody: not in all of the runs"):
        table6([drawbench], scorer="nobody")
    with pytest.raises(ValueError, match="no run has a model 'x'; there are: glide"):
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
    assert found.notes[1].startswith("means over 5 images")
    assert not found.laboratory
    assert Image.open(tmp_path / "f.png").width > 300
    swapped = figure5(table, scorers=["other", "made-up"])
    assert swapped.rows[0].labels == ("other", "made-up")
    with pytest.raises(ValueError, match="a correlation needs two scorers, got made-up"):
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
    monkeypatch.setattr(command, "GENERATORS", {"level-2": None, "level-9": None})
    for item, titled in (
        ("table6", "Table 6: text-to-image models by the score of shapes"),
        ("figure5", "Figure 5: correlation between scorers, of models' mean scores on 2 prompts"),
        ("figure6", "Figure 6: first choice of each scorer among 2 images"),
    ):
        done = paper(item, "--size", 2, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "the laboratory stands in" in done.stderr
        found = json.loads((tmp_path / f"{item}.json").read_text())
        assert found["title"].startswith(titled)
        assert found["title"].endswith(LAB)
        assert found["laboratory"]
        assert f"{item} needs" in done.stderr
    sixth = cells((tmp_path / "table6.json").read_text())
    assert list(sixth) == [*MODELS, "level-2", "level-9"]
    assert sixth["level-9"][4]["published"] is None
