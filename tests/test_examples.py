"""The scripts and notebooks under examples/, run in small and, marked slow, as they are."""

import ast
import inspect
import json
import runpy
from pathlib import Path

import pytest
from helpers.places import ROOT

EXAMPLES = ROOT / "examples"
SMALL: dict[str, dict[str, int]] = {
    "bench_models": {"per_category": 1},
    "best_of_n": {"n": 2, "steps": 2},
    "finetune": {"steps": 1, "batch_size": 2, "sampling_steps": 2},
    "grpo_loop": {"rounds": 1, "steps": 2},
    "guidance": {"n": 1, "steps": 2},
    "own_scorer": {},
    "score_and_rank": {},
    "train_your_own": {"groups": 4, "held_out": 4, "steps": 2},
}
"""Arguments with which each takes seconds."""


def test_every_script_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_script(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    main(**SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_script_says_how_it_is_run(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"Run it: python examples/{name}.py" in text
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    assert set(SMALL[name]) <= set(inspect.signature(main).parameters)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_script_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize(
    "path",
    [
        EXAMPLES / "score_and_choose.ipynb",
        pytest.param(EXAMPLES / "train_and_evaluate.ipynb", marks=pytest.mark.slow),
    ],
    ids=lambda path: path.stem,
)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells one after another; the last value of a cell shows itself as it does in Jupyter."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads(path.read_text())["cells"]
    names: dict[str, object] = {"__name__": "__main__"}
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(codes) >= 4
    shown = 0
    for code in codes:
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            shown += hasattr(value, "_repr_html_") and "<table" in value._repr_html_()
    assert shown >= 2
    assert all(not cell.get("outputs") for cell in cells), "saved without outputs"
