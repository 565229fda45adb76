"""A whole run: models' images examined by a judge, and how far the judge itself can be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.output.durable import replacing
from stablepref.output.locks import sole_writer
from stablepref.output.tables import Table

from .benchmarks import COLUMNS, as_rows
from .laboratory import error_rows, judge_errors
from .run import answer_all
from .sources import images_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .benchmarks import Benchmark, Line
    from .judge import Judge
    from .laboratory import JudgeErrors
    from .run import Answers
    from .sources import Source

RESULTS_FILE: Final = "results.json"
MARKDOWN_FILE: Final = "results.md"
CSV_FILE: Final = "results.csv"


@final
@dataclass(frozen=True)
class Results:
    """What a run came to.

    Attributes:
        benchmark: Its name.
        judge: The judge's name.
        models: The numbers of each model.
        errors: How often the judge was wrong about the laboratory's pictures; None if not asked.
        failures: Model, key and reason of each picture that was not examined.
        examined: How many pictures were.
        notes: How numbers differ from published ones.
    """

    benchmark: str
    judge: str
    models: Mapping[str, Sequence[Line]]
    errors: JudgeErrors | None
    failures: Sequence[tuple[str, str, str]]
    examined: int
    notes: Sequence[str]

    def tables(self) -> list[Table]:
        """The numbers, and the judge's own errors beside them."""
        tables = [
            Table(
                columns=COLUMNS,
                rows=[one.cells(name) for name, own in self.models.items() for one in own],
                title=f"{self.benchmark}, judged by {self.judge}: per cent, 95 % intervals",
                note=". ".join(self.notes),
                name="results",
                number_format=".1f",
            )
        ]
        if self.errors is not None:
            tables.append(errors_table(self.judge, self.errors))
        return tables

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "benchmark": self.benchmark,
            "judge": self.judge,
            "models": {name: as_rows(own) for name, own in self.models.items()},
            "judge_errors": None if self.errors is None else errors_dict(self.errors),
            "failures": [list(one) for one in self.failures],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """The tables and notes in Markdown."""
        notes = "".join(f"\n- {one}\n" for one in self.notes)
        return "\n".join(table.markdown() for table in self.tables()) + notes


def examine(
    benchmark: Benchmark,
    sources: Sequence[Source],
    judge: Judge,
    *,
    data: Path,
    out: Path,
    scenes: int,
) -> Results:
    """Ask a judge about every model's images, and about pictures of which everything is known.

    Args:
        benchmark: What is asked.
        sources: The models' images.
        judge: Who answers.
        data: The benchmark's file, whose content tells a run from others.
        out: Folder of the run; if interrupted, the same call resumes.
        scenes: Pictures of the laboratory on which the judge is tried; 0 for none.

    Raises:
        ValueError: No image of a model could be examined, or `scenes` is negative.
        ResumeError: The folder has answers of another run.
        OSError: A file cannot be read or written.
    """
    if scenes < 0:
        msg = f"scenes is {scenes}; expected a number of pictures, 0 or more"
        raise ValueError(msg)
    tasks = [
        task
        for source in sources
        for task in benchmark.tasks(source.name, images_of(source, benchmark.prompts))
    ]
    settings = {
        "benchmark": benchmark.name,
        "data": blake2b(data.read_bytes(), digest_size=8).hexdigest(),
        **benchmark.settings(),
    }
    with sole_writer(out, folder=True):
        answers = answer_all(tasks, judge, out=out, settings=settings)
        errors = judge_errors(judge, scenes=scenes) if scenes else None
        failures = [
            (task.model, task.key, str(found))
            for task in tasks
            if isinstance(found := answers[task.model, task.key], str)
        ]
        results = Results(
            benchmark.name,
            judge.name,
            {one.name: _lines(benchmark, one.name, answers, failures) for one in sources},
            errors,
            failures,
            len(tasks) - len(failures),
            benchmark.notes,
        )
        _write(out, results)
    return results


def errors_table(judge: str, errors: JudgeErrors) -> Table:
    """How often a judge was wrong."""
    return Table(
        columns=("question", "wrong", "low", "high", "questions"),
        rows=error_rows(errors),
        title=f"{judge}: wrong answers about drawn scenes, per cent, 95 % intervals",
        name="judge",
        number_format=".1f",
    )


def errors_dict(errors: JudgeErrors) -> list[dict[str, Any]]:
    """The same as plain JSON values."""
    names = ("question", "wrong", "low", "high", "questions")
    return [dict(zip(names, row, strict=True)) for row in error_rows(errors)]


def _lines(
    benchmark: Benchmark,
    model: str,
    answers: Mapping[tuple[str, str], Answers | str],
    failures: Sequence[tuple[str, str, str]],
) -> Sequence[Line]:
    try:
        return benchmark.lines(model, answers)
    except ValueError as error:
        first = next((reason for name, _, reason in failures if name == model), "no reason")
        msg = f"{model}: {error}; the first: {first}"
        raise ValueError(msg) from error


def _write(out: Path, results: Results) -> None:
    """Write all files, each whole or not at all."""
    texts = {
        RESULTS_FILE: json.dumps(results.as_dict(), indent=1) + "\n",
        MARKDOWN_FILE: results.markdown(),
        CSV_FILE: results.tables()[0].csv(),
    }
    for name, text in texts.items():
        with replacing(out / name) as staging:
            staging.write_text(text, encoding="utf-8")
