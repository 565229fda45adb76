"""The measurement of human agreement, from the command line to its JSON."""

import json
from pathlib import Path

import pytest

from stablepref.benchmarks.human_agreement import main

ROW = {"prompt": "p", "image_path": ["a", "b", "c"], "rankings": [[1, 1], [2, 3], [3, 2]]}


def test_numbers_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.json").write_text(json.dumps([ROW, ROW]))
    main([str(tmp_path / "d.json"), "--json", str(tmp_path / "out.json"), "--resamples", "50"])
    out = json.loads((tmp_path / "out.json").read_text())
    # Two annotators who differ on one of three pairs; every group is the same.
    for name in ("single against single", "single against the average of the others"):
        assert out["agreement"][name] == pytest.approx(
            {"value": 2 / 3, "low": 2 / 3, "high": 2 / 3}
        )
    assert out["groups"] == 2
    assert out["majority"] == pytest.approx({"0.5": 1 / 3, "1.0": 2 / 3})
    assert "66.67" in capsys.readouterr().out


def test_data_without_annotators_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "p", "images": ["a", "b"], "ranks": [1, 2]}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "d.jsonl")])
    assert "no group has the ranks of single annotators" in capsys.readouterr().err
