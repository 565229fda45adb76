"""Candidates on disk: lines that make no sense are not believed."""

import json
from pathlib import Path

import pytest

from stablepref.integrations.best_of_n.folder import ROWS_FILE, Candidate, CandidateFolder
from stablepref.output.partial import ResumeError

SETTINGS = {"prompt": "a dog"}
GOOD: dict[str, object] = vars(Candidate(0, 5, 0.25))


def opened(folder: Path, row: object) -> CandidateFolder:
    """The folder with one line."""
    lines = [{"settings": SETTINGS}, row]
    (folder / ROWS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return CandidateFolder(folder, seed=5, settings=SETTINGS)


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        vars(Candidate(0, 5, None, "black")),
        vars(Candidate(0, 5, 1, pruned=True)),
        vars(Candidate(0, 5, None, "lost", pruned=True)),
    ],
)
def test_what_is_written_is_read(row: dict[str, object], tmp_path: Path) -> None:
    folder = opened(tmp_path, row)
    picture = folder.picture(Candidate(**row))  # type: ignore[arg-type] # as written
    picture.touch()
    assert CandidateFolder(tmp_path, seed=5, settings=SETTINGS).done == {0: Candidate(**row)}  # type: ignore[arg-type] # as written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"index": -1}, "now the index 0"),
        ({"score": "0.5"}, "candidate 0: score is"),
        ({"score": float("nan")}, "candidate 0: score is"),
        ({"score": [0.5]}, "candidate 0: score is"),
        ({"fault": 3}, "candidate 0: fault is"),
        ({"pruned": 1}, "candidate 0: pruned is"),
        ({"other": 1}, "candidate 0: .*other"),
        ({"score": None}, "candidate 0 has the score None and the fault None"),
        ({"fault": "black"}, "candidate 0 has the score 0.25 and the fault 'black'"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_file_and_entry(
    change: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ResumeError, match=says) as error:
        opened(tmp_path, GOOD | change)
    assert str(tmp_path / ROWS_FILE) in str(error.value)
