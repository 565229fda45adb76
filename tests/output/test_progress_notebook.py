"""Bars in a notebook, run by a kernel as Jupyter runs it."""

import json
from pathlib import Path

import pytest
from helpers.children import python_path
from helpers.places import ROOT

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")

LONG = """
from stablepref.output import progress

progress.PATIENCE_SECONDS = 0.0
with progress.progress_bar("scoring", total=8) as advance:
    for _ in range(8):
        advance(1)
print("end")
"""
HIDDEN = LONG.replace("total=8", "total=8, show=False").replace("scoring", "hidden")


def test_a_bar_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    cells = [nbformat.v4.new_code_cell(source) for source in (LONG, HIDDEN)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    kernel = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": ROOT}})
    kernel.execute()
    assert "end" in json.dumps(notebook.cells[0].outputs)
    shown = json.dumps([notebook.cells[0].outputs, notebook.metadata.get("widgets", {})])
    assert "scoring" in shown
    assert "8/8" in shown
    assert "hidden" not in shown
    assert "stderr" not in json.dumps(notebook.cells[1].outputs)
