"""The oracle's own accuracy, and the command that prints it."""

from pathlib import Path

from helpers.typed import refused, typed

from stablepref.benchmarks.shapes.oracle.__main__ import main
from stablepref.benchmarks.shapes.oracle.check import check_oracle


def test_the_check_counts_kinds() -> None:
    accuracies, blamed = check_oracle("blurred", scenes=3, quiet=True)
    assert accuracies["correct"].trials == accuracies["colour"].trials == 3
    assert blamed["colour"]["colour"] == 1


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    out = tmp_path / "oracle.json"
    assert "noisy" in typed(main, "--scenes", 1, "--json", out)
    assert out.read_text().count('"correct"') == 3
    assert "'tset' is not one of 'train', 'validation', 'test'" in refused(main, "--split", "tset")
