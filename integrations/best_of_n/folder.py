"""Candidates on disk: each picture as soon as it is scored, so that a killed run can resume."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from stablepref.output.durable import replacing
from stablepref.output.partial import PartialFile, ResumeError
from stablepref.runtime.fields import check_fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

ROWS_FILE = "candidates.jsonl"
PICTURES = "candidates"


@final
@dataclass(frozen=True)
class Candidate:
    """One candidate, without its picture.

    Attributes:
        index: Position among the candidates.
        seed: Of its noise.
        score: In the scorer's unit; None if it has none.
        fault: Why it has none, such as a blanked picture.
        pruned: Whether it was dropped on the way, its picture being a prediction.
    """

    index: int
    seed: int
    score: float | None
    fault: str | None = None
    pruned: bool = False


@final
class CandidateFolder:
    """Pictures and scores of one prompt's candidates in a folder, from which a later run resumes.

    `candidates.jsonl` holds the settings in its first line and then a line for each candidate, in
    their order; `candidates/` the pictures. A line is written after its picture.

    Attributes:
        done: The candidates that are there, by index.

    Args:
        folder: Made if it is not there.
        seed: Of the first candidate.
        settings: What the candidates depend on, plain JSON values.

    Raises:
        ResumeError: The folder holds candidates of other settings, or its file is damaged.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, *, seed: int, settings: Mapping[str, object]) -> None:
        self.folder = folder
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        self._file = PartialFile(folder / ROWS_FILE)
        expected = ({"index": i, "seed": seed + i} for i in itertools.count())
        rows = (self._candidate(row) for row in self._file.resume(settings, expected))
        self._known = {candidate.index: candidate for candidate in rows}
        self.done = {i: c for i, c in self._known.items() if self.picture(c).is_file()}

    def _candidate(self, row: Mapping[str, object]) -> Candidate:
        """A candidate as its line says, if the line makes sense.

        Raises:
            ResumeError: It does not.
        """
        try:
            candidate = Candidate(**row)  # type: ignore[arg-type] # checked next
            check_fields(candidate)
        except (TypeError, ValueError) as error:
            raise ResumeError(
                f"{self._file.path} is damaged: candidate {row.get('index')}: {error}; delete it "
                "or choose another folder"
            ) from error
        if (candidate.score is None) == (candidate.fault is None) and not candidate.pruned:
            raise ResumeError(
                f"{self._file.path} is damaged: candidate {candidate.index} has the score "
                f"{candidate.score} and the fault {candidate.fault!r}, expected one of both; "
                "delete it or choose another folder"
            )
        return candidate

    def picture(self, candidate: Candidate) -> Path:
        """Where the candidate's picture is."""
        return self.folder / PICTURES / f"{candidate.index:05d}-seed-{candidate.seed}.png"

    def add(self, candidate: Candidate, image: Image.Image) -> None:
        """Write a candidate: the picture whole, then its line, if that is not there already."""
        with replacing(self.picture(candidate)) as staging:
            image.save(staging, "PNG")
        if candidate.index not in self._known:
            with self._file.writing() as write:
                write(vars(candidate))
            self._known[candidate.index] = candidate
        self.done[candidate.index] = candidate
