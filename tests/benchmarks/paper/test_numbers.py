"""The paper's numbers and rows, written here once more from the paper, and its own arithmetic."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from helpers.isolated import BENCH_HELP, heavy_imports
from helpers.paper_case import MODELS, ROWS, TABLE_1_LINES, paper

from stablepref.benchmarks.paper.layouts import LAYOUTS
from stablepref.benchmarks.paper.methods import METHODS, parse_models
from stablepref.benchmarks.paper.numbers import STYLES, TABLE_1, TABLE_6, human_order, misprints
from stablepref.benchmarks.paper.request import ITEMS, Request
from stablepref.cli.options import read_setting
from stablepref.recipes import RECIPES, TrainConfig, recipe

WHO = {  # who scores in the rows of Tables 4 and 5
    "table4": "clip-l clip-h aesthetic hps-v1 pickscore imagereward hps-v2 - - "
    "sp-clip-l sp-clip-h sp-clip-h-hps",
    "table5": "ce-clip-l ce-clip-h ce-blip - - sp-clip-l sp-clip-h sp-clip-h-hps",
}


def test_table_1_is_as_printed_and_its_misprints_are_found() -> None:
    wrong = []
    for line, row in zip(TABLE_1_LINES, TABLE_1, strict=True):
        method, dataset, original, *cells = line.split("|")
        assert (row.method, row.dataset, f"{row.original:.1f}") == (method, dataset, original)
        published = row.published()[1:]
        for place, cell in enumerate(cells):
            value, change = cell.strip(")").split(" (")
            assert published[place].value == float(value)
            own = Decimal(value) - Decimal(original)
            assert Decimal(f"{row.own_change(place):.1f}") == own
            if own == Decimal(change):
                assert published[place].printed == cell
            else:
                wrong.append((method, dataset, change, f"{own:+.1f}"))
                told = f"{value} ({change}, printed; {own:+.1f} by its own numbers)"
                assert published[place].printed == told
    assert wrong == [
        ("SP (CLIP-H)", "HPD v2", "+0.4", "-0.4"),
        ("SP (CLIP-H)", "HPD v2", "+0.3", "-0.3"),
    ]
    first, second, third = misprints()
    assert "crop 0.95: printed is +0.4, but 80.3 - 80.7 is -0.4" in first
    assert "crop 0.93: printed is +0.3, but 80.4 - 80.7 is -0.3" in second
    assert "ImageReward on ImageReward has 65.2 in Table 1 and 65.1 in Table 4" in third
    assert [note[:22] for note in human_order()] == ["as printed: in Table 4"]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_there_in_the_order_of_the_paper(name: str) -> None:
    lines = LAYOUTS[name].lines
    found = ["|".join((*line.labels, *(one.printed for one in line.published))) for line in lines]
    assert found == ROWS[name].splitlines()
    assert all(float(one.printed) == one.value for line in lines for one in line.published)


def test_who_scores_in_each_row() -> None:
    for name, expected in WHO.items():
        keys = [line.who if line.method else "-" for line in LAYOUTS[name].lines]
        assert keys == expected.split()
    told = {key: (method.base, method.training) for key, method in METHODS.items()}
    assert told["aesthetic"] == ("laion-aesthetic-v2", "")
    assert told["ce-blip"] == ("blip-large", None)
    assert told["sp-clip-h-hps"] == ("hps-v2", "--recipe sp-clip-h-hps")


def test_the_trainings_are_recipes_from_the_rows_own_model() -> None:
    for method in METHODS.values():
        if not method.training:
            continue
        words = method.training.split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        name = given.pop("--recipe")
        fields = {key.strip("-").replace("-", "_"): value for key, value in given.items()}
        values = {key: read_setting(TrainConfig, key, text) for key, text in fields.items()}
        assert recipe(name, **values).model == RECIPES[name].model == method.base


def test_table_6_is_as_printed(shared_data: Path) -> None:
    assert tuple(system.name for system in TABLE_6) == MODELS
    assert len(STYLES) == 4
    page = (shared_data.parent / "paper.txt").read_text(encoding="utf-8")
    for system in TABLE_6:
        numbers = [f"{mean:.2f}±{deviation:.3f}" for mean, deviation in system.styles]
        line = "\t".join((*numbers, f"{system.drawbench:.2f}"))
        assert re.search(rf"^{re.escape(system.name)}(?: \[\d+\])?\t{line}$", page, re.MULTILINE)


def test_tables_4_and_5_are_those_of_the_paper(shared_data: Path) -> None:
    page = (shared_data.parent / "paper.txt").read_text(encoding="utf-8")
    for name in ("table4", "table5"):
        place = page.index(f"Table {name[-1]}: Comparison")
        for row in ROWS[name].splitlines():
            title, value = row.split("|")
            word = re.escape(title).replace("†", r" \[†\]")
            found = re.compile(rf"^{word}(?: \[[\d, ]+\])?\t{value}$", re.MULTILINE)
            assert found.search(page, place), row


def test_rows_are_named_as_people_write_them() -> None:
    names = LAYOUTS["table4"].names()
    given = {
        "SP CLIP-H": "sp-clip-h",
        "stable preference (clip-l)": "sp-clip-l",
        "SP CLIP-H from HPS v2": "sp-clip-h-hps",
        "sp-clip-h-hps": "sp-clip-h-hps",
        "Aesthetic Score Predictor": "aesthetic",
    }
    for written, key in given.items():
        assert parse_models([f"{written}=a=b"], names) == {key: "a=b"}
    assert parse_models(["CLIP-L=x"], LAYOUTS["table5"].names()) == {"ce-clip-l": "x"}
    for wrong, says in (
        (["sp-clip-h"], "expected ROW=PATH"),
        (["blip=x"], "no row is called 'blip'; the rows are: clip-l, clip-h"),
        (["clip-h=x", "CLIP-H=y"], "the row clip-h is given twice"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            parse_models(wrong, names)


def test_figure_4_beside_its_formula(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = paper("figure4", "--out", tmp_path / "o", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert not found["laboratory"]
    # 1 / (1 + e^-2) and 1 / (1 + e^2), to four places.
    weights = {row["ΔS"]: row["cells"][0] for row in found["rows"]}
    for margin, expected in (("+0.0", 0.8808), ("+0.1", 0.5), ("+0.2", 0.1192)):
        assert weights[margin]["published"] == pytest.approx(expected, abs=5e-5)
        assert weights[margin]["ours"]["value"] == pytest.approx(expected, abs=5e-5)
    assert any("0.818" in note for note in found["notes"])
    assert (tmp_path / "o" / "figure4.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table7"], "is not a table or figure; expected one of table1, table2"),
        (["table4", "--json", "--markdown"], "one of --json, --markdown, not several"),
        (["table4", "--run", "x"], "table4 does not take --run; its options are: --hpdv2"),
        (
            ["figure4", "--out", "o", "--scorer", "x"],
            "figure4 does not take --scorer; it only takes --out",
        ),
        (["table6", "--hpdv2", "."], "table6 does not take --hpdv2"),
        (["figure5"], "give a folder for it, --out FOLDER"),
        (["table4", "--imagereward", "nowhere"], "this file or folder does not exist"),
        (["table4", "--model", "clip-h=shape"], "unknown model 'shape'"),
        (["table4", "--imagereward", ".", "--size", "3"], "--size is for the laboratory"),
        (["table4", "--download", "--ablations", "."], "leave it out with real data"),
        (["table4", "--imagereward-images", "."], "of --imagereward are: give --imagereward too"),
        (["table4", "--ablations", "."], "is not a run of the ablations"),
        (["table6", "--model", "GLIDE=x"], "give the runs too, --run"),
        (["table6", "--run", "."], "is not a run of a benchmark"),
        (["figure6", "--out", "o", "--run", "a", "--run", "b"], "figure6 is of one run"),
        (["table4", "--scorer", "shape"], "table4 does not take --scorer"),
        (["figure5", "--out", "o", "--scorer", "shape"], "unknown model 'shape'"),
    ],
)
def test_wrong_use(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = paper(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_file_is_no_folder_for_results(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("")
    with pytest.raises(ValueError, match="this is a file; expected a folder"):
        Request(name=ITEMS[0], out=tmp_path / "o")


@pytest.mark.parametrize("arguments", ['"paper", "--help"', '"paper", "table4", "--run", "x"'])
def test_help_and_mistakes_need_no_torch(arguments: str, tmp_path: Path) -> None:
    assert heavy_imports(BENCH_HELP.format(arguments=arguments), tmp_path) == set()
