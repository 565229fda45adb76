"""What the laboratory's commands share: their options, and how they write numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from stablepref.output.durable import replacing

from .scenes import Split

SplitOption = Annotated[Split, typer.Option(help="split of the scenes; validation is for choosing")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or mps")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="threads of PyTorch; its default if left out")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="also write the numbers here")]

PipelineOption = Annotated[
    Path, typer.Option(exists=True, file_okay=False, help="folder of the pipeline")
]


def write_json(path: Path, value: object) -> None:
    """Write JSON, indented; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as staging:
        staging.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
