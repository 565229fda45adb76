"""The laboratory's own 200 prompts: `python -m stablepref.benchmarks.shapes.prompt_set FILE`.

A table with the columns of DrawBench, for claims about pipelines that this world can grade.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stablepref.output.tables import Table

from .world.prompts import CATEGORIES, LabPrompt, lab_prompts


def prompts_csv(prompts: Sequence[LabPrompt]) -> str:
    """The prompts as a table with the columns Prompts and Category, like DrawBench's."""
    rows = [(prompt.prompt, prompt.category) for prompt in prompts]
    return Table(columns=("Prompts", "Category"), rows=rows).csv(spreadsheet=False)


def main(out: Annotated[Path, typer.Argument(help="file to write, .csv")]) -> None:
    """Write the laboratory's prompt set."""
    prompts = lab_prompts()
    out.write_text(prompts_csv(prompts), encoding="utf-8")
    typer.echo(f"{out}: {len(prompts)} prompts in {len(CATEGORIES)} categories")


if __name__ == "__main__":
    typer.run(main)
