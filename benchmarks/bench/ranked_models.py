"""Ranked groups of pictures as models to compare, each identified by the numbers of its files.

`python -m stablepref.benchmarks.bench.ranked_models groups.json --out FOLDER` writes the prompts
and a manifest for each model, for `stablepref bench`. In HPD v2's test split the pictures of one
prompt are numbered in a row, and those at one place of the row look like one generator's; the
files do not say which.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablepref.data.read import read_groups
from stablepref.output.durable import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stablepref.data.groups import RankedGroup

PROMPTS_FILE = "prompts.jsonl"


def models_of(groups: Iterable[RankedGroup]) -> dict[str, list[dict[str, str]]]:
    """Rows of image and prompt by model: "generator-0" has each group's lowest number.

    Raises:
        ValueError: An image is not a file named by a number.
    """
    models: dict[str, list[dict[str, str]]] = defaultdict(list)
    for group in groups:
        numbers = [_number(image) for image in group.images]
        for image, number in zip(group.images, numbers, strict=True):
            row = {"image": str(Path(str(image)).resolve()), "prompt": group.prompt}
            models[f"generator-{number - min(numbers)}"].append(row)
    return dict(sorted(models.items(), key=lambda item: int(item[0].rpartition("-")[2])))


def _number(image: object) -> int:
    stem = Path(image).stem if isinstance(image, str | Path) else ""
    if not stem.isdecimal():
        msg = f"the image {image!r:.80} has no number for a name, as 00012.jpg has"
        raise ValueError(msg)
    return int(stem)


def write_models(models: Mapping[str, Sequence[Mapping[str, str]]], out: Path) -> None:
    """Write the prompts of all models, each once, and each model's manifest.

    Raises:
        OSError: The folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    prompts = dict.fromkeys(row["prompt"] for rows in models.values() for row in rows)
    files = {PROMPTS_FILE: [{"prompt": prompt} for prompt in prompts]}
    for name, lines in (files | {f"{name}.jsonl": rows for name, rows in models.items()}).items():
        with replacing(out / name) as staging:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            staging.write_text(text, encoding="utf-8")


def main(
    groups: Annotated[
        Path, typer.Argument(exists=True, help="ranked groups with images in numbered files")
    ],
    out: Annotated[Path, typer.Option(help="folder for prompts and manifests")],
) -> None:
    """Write prompts and manifests, and print the command that compares the models."""
    models = models_of(read_groups(groups))
    write_models(models, out)
    chosen = " ".join(f"-m {name}={out / name}.jsonl" for name in models)
    typer.echo(f"stablepref bench {out / PROMPTS_FILE} {chosen} --people {groups} -s MODEL -o RUN")


if __name__ == "__main__":
    typer.run(main)
