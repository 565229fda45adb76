"""Rows of several processes: what a killed one leaves behind."""

from pathlib import Path

from stablepref.benchmarks.bench.row_files import RowFiles


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """Of every process, also of one that does not take part when the run is resumed."""
    files = RowFiles(tmp_path)
    files.begin({"of": 1}, retry=lambda _: False)
    files.write(1, {"of": 1}, [{"row": 1}])
    left = tmp_path / ".001.jsonl.0eb0c16c01ea7ee1.writing"
    left.write_text("half")
    files.begin({"of": 1}, retry=lambda _: False)
    assert not left.exists()
    assert list(files.rows(lambda _: None)) == [{"row": 1}]
