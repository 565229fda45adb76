"""`stablepref bench paper` on the command line: wrong use, and what is not imported for it."""

from pathlib import Path

import pytest
from helpers.isolated import BENCH_HELP, heavy_imports
from helpers.paper_case import paper

from stablepref.benchmarks.paper.request import ITEMS, Request
from stablepref.output.locks import sole_writer


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


def test_a_second_paper_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with sole_writer(tmp_path, folder=True):
        done = paper("figure4", "--out", tmp_path)
    assert done.returncode == 2
    assert "is being written by another process" in done.stderr
    assert not list(tmp_path.iterdir())
