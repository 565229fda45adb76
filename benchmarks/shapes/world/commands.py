"""What the laboratory's commands share: their options, and how they write numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from stablepref.assets import PIPELINES
from stablepref.output.durable import replacing

from .scenes import Split

SplitOption = Annotated[Split, typer.Option(help="split of the scenes; validation is for choosing")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or mps")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="threads of PyTorch; its default if left out")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="also write the numbers here")]


def pipeline_folder(name: str | Path) -> Path:
    """The folder of a pipeline of the laboratory, or of one that is bundled under that name."""
    folder = PIPELINES.get(str(name), Path(name).expanduser())
    if not folder.is_dir():
        raise typer.BadParameter(
            f"folder {str(name)!r} does not exist; expected that of a pipeline, or "
            f"{', '.join(PIPELINES)}, which is bundled"
        )
    return folder


PIPELINE_HELP = f"folder of the pipeline, or {', '.join(PIPELINES)}, which is bundled"
PipelineOption = Annotated[Path, typer.Option(parser=pipeline_folder, help=PIPELINE_HELP)]


def write_json(path: Path, value: object) -> None:
    """Write JSON, indented; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as staging:
        staging.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
