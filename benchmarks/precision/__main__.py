"""What reduced precision does to scores: `python -m stablepref.benchmarks.precision --images DIR`.

Every way of `candidates` is compared with float32: error in score units, and how often two pictures
keep their order under a prompt. The large models have seeded random weights, which say little about
ranks; `shapes` is trained. On a CPU without bfloat16 units the products are emulated, and the
seconds mean nothing then.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stablepref.images.paths import existing_files
from stablepref.models.catalog import BY_NAME
from stablepref.runtime.precision import has_bfloat16_units

from ..speed.seeded import seeded_checkpoint
from .candidates import CANDIDATES
from .compare import compare, shape_scenes, table_of

PROMPTS = (
    "a red fox asleep under a wooden bridge",
    "portrait of an old sailor, oil on canvas",
    "an astronaut riding a horse across a frozen lake at sunrise, highly detailed",
    "logo of a bakery, flat design, two colours",
)
WIDTH = 140  # of the tables, whatever the terminal: they are also read from files
SEEDED = {
    "vit-l-14": "clip-vit-l-14",
    "vit-h-14": "hps-v2.1",
    "imagereward": "imagereward-v1",
    "aesthetic": "laion-aesthetic-v2",
}
"""Short names of the models with seeded weights, and their names in the zoo."""

SHAPES = "shapes-clip"
SCENES = 40


def main(
    images: Annotated[Path, typer.Option(help="Folder of pictures for the large models.")],
    workdir: Annotated[Path, typer.Option(help="Keeps the seeded checkpoints: 9 GB.")] = Path(
        "speed-work"
    ),
    models: Annotated[
        list[str],
        typer.Option("--scorer", "-s", "--model", help=f"Some of: {SHAPES}, {', '.join(SEEDED)}."),
    ] = [  # noqa: B006 - typer copies it
        SHAPES,
        *SEEDED,
    ],
    candidates: Annotated[list[str], typer.Option("--candidate", help="All if left out.")] = [  # noqa: B006 - as above
        *CANDIDATES
    ],
    n: Annotated[int, typer.Option(min=2, help="Pictures for the large models.")] = 40,
    emulate: Annotated[
        bool | None, typer.Option(help="Emulate products; by default where the CPU has no units.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Compare ways of reduced precision with float32, on pictures or scenes."""
    for given, known in ((models, [SHAPES, *SEEDED]), (candidates, [*CANDIDATES])):
        for name in given:
            if name not in known:
                raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, known))}")
    try:
        paths = existing_files(str(images))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--images {error}") from error
    chosen = paths[:: max(1, len(paths) // n)][:n]
    console = Console(width=WIDTH)
    emulated = not has_bfloat16_units() if emulate is None else emulate
    console.print("half-precision products are emulated" if emulated else "products are the CPU's")
    reports = {}
    for name in models:
        entry = BY_NAME[SEEDED.get(name, SHAPES)]
        if name == SHAPES:
            scorer = entry.build([]).float()
            reports[name] = compare(scorer, *shape_scenes(SCENES), candidates, emulate=emulated)
        else:
            path = seeded_checkpoint(entry.name, workdir)
            scorer = entry.build([path.with_name(file.filename) for file in entry.files]).float()
            reports[name] = compare(scorer, chosen, PROMPTS, candidates, emulate=emulated)
        del scorer
        console.print(table_of(name, reports[name]))
    if out is not None:
        out.write_text(json.dumps({k: asdict(v) for k, v in reports.items()}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
