"""Checks the oracle: `python -m stablepref.benchmarks.shapes.oracle`. Needs the extra ``bench``."""

from dataclasses import asdict
from typing import Annotated

import typer

from stablepref.output.tables import Table, print_table

from ..world.commands import JsonOption, SplitOption, write_json
from .check import DAMAGES, check_oracle
from .grading import ATTRIBUTES


def main(
    scenes: Annotated[int, typer.Option(min=1, help="correct scenes")] = 1000,
    split: SplitOption = "test",
    seed: Annotated[int, typer.Option(help="seed of scenes and pictures")] = 0,
    out: JsonOption = None,
) -> None:
    """Print how often correct pictures are graded correct, and wrong ones wrong."""
    report = {}
    for damage in DAMAGES:
        accuracies, blamed = check_oracle(damage, scenes=scenes, split=split, seed=seed)
        print_table(
            Table(
                columns=("picture", "%", "of", *ATTRIBUTES),
                rows=[
                    (kind, 100 * row.value, row.trials, *(100 * s for s in blamed[kind].values()))
                    for kind, row in accuracies.items()
                ],
                title=f"{damage}: % graded right, and % in which each attribute was graded wrong",
                number_format=".1f",
            )
        )
        report[damage] = {
            kind: {**asdict(row), "graded_wrong": blamed[kind]} for kind, row in accuracies.items()
        }
    if out is not None:
        write_json(out, report)


if __name__ == "__main__":
    typer.run(main)
