"""Rows of a study, made one by one or in batches: a killed run continues where it was."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stablepref.output.locks import sole_writer
from stablepref.output.partial import PartialFile

Row = dict[str, Any]


def resumed_rows(
    path: Path,
    identity: Mapping[str, object],
    jobs: Sequence[Row],
    make: Callable[[Row], Row],
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> list[Row]:
    """The row of every job: that which a file has, or what is made now and written at once.

    Args:
        path: of the file, in a folder that only one process may write to.
        identity: everything that the rows depend on.
        jobs: what tells each row from the others, in order.
        make: what a job's row has besides.
        advance: gets the number of further rows.

    Raises:
        ResumeError: the file holds rows of other settings.
    """
    return resumed_batches(
        path,
        identity,
        jobs,
        lambda batch: [make(job) for job in batch],
        batches=lambda left: ([job] for job in left),
        advance=advance,
    )


def resumed_batches(
    path: Path,
    identity: Mapping[str, object],
    jobs: Sequence[Row],
    make: Callable[[Sequence[Row]], Iterable[Row]],
    *,
    batches: Callable[[Sequence[Row]], Iterable[Sequence[Row]]],
    advance: Callable[[int], object] = lambda _: None,
) -> list[Row]:
    """`resumed_rows` of which several are made together.

    Args:
        path: of the file, in a folder that only one process may write to.
        identity: everything that the rows depend on.
        jobs: what tells each row from the others, in order.
        make: what each row of a batch of jobs has besides.
        batches: cuts the jobs that are left, in their order.
        advance: gets the number of further rows.

    Raises:
        ResumeError: the file holds rows of other settings.
    """
    file = PartialFile(path)
    with sole_writer(path.parent, folder=True):
        rows = list(file.resume(identity, iter(jobs)))
        advance(len(rows))
        with file.writing() as write:
            for batch in batches(jobs[len(rows) :]):
                for job, made in zip(batch, make(batch), strict=True):
                    row = {**job, **made}
                    write(row)
                    rows.append(row)
                    advance(1)
    return rows
