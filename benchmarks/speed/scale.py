"""What more images cost: `python -m stablepref.benchmarks.speed.scale`.

Drawings of the laboratory are scored in several ways, each number of images in a new process. Two
claims are tested: processor time grows in proportion to the number of images, and memory does not
grow with it.
"""

from __future__ import annotations

import datetime
import json
import random
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.parquet
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stablepref.output.durable import replacing

from ..shapes.world.drawing import render
from ..shapes.world.language import describe
from ..shapes.world.scenes import sample_scene
from .machine import machine_kind
from .own_process import measure_apart
from .scale_run import WAYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIZES = [100, 1_000, 10_000]
SIDE = 64
ROW_GROUP = 250
MEGA, MILLI = 1e6, 1e-3
# Ray's workers would otherwise yield to all other processes, which is no fair clock.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
WIDTH = 120  # of the table, whatever the terminal: it is also read from files


def draw_rows(folder: Path, sizes: Sequence[int], *, side: int = SIDE) -> dict[int, Path]:
    """Draw held-out scenes as PNG files, and write a manifest of the first n for each size n.

    Beside each manifest lies a parquet file of the same rows with the pictures' bytes. Equal calls
    draw equal pictures. Pictures that exist are kept, so that the same call resumes a killed one.

    Args:
        folder: Where to write; created if it is missing.
        sizes: Numbers of images.
        side: Side of the pictures in pixels.

    Returns:
        The manifests by size.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in track(range(max(sizes)), description="drawing"):
        rng = random.Random(f"scale {number}")
        scene = sample_scene(rng, "test")
        prompt = describe(scene, rng)
        path = pictures / f"{number:06d}.png"
        if not path.exists():
            with replacing(path) as staging:
                picture = Image.fromarray(render(scene, seed=number, size=side))
                picture.save(staging, format="PNG")
        rows.append({"image": f"pictures/{path.name}", "prompt": prompt})
    manifests = {}
    for size in sizes:
        manifests[size] = folder / f"rows-{size}.jsonl"
        manifests[size].write_text("".join(map(_line, rows[:size])), encoding="utf-8")
        _write_parquet(manifests[size].with_suffix(".parquet"), folder, rows[:size])
    return manifests


def _line(row: Mapping[str, str]) -> str:
    return json.dumps(row) + "\n"


def _write_parquet(path: Path, folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    schema = pa.schema([("image", pa.binary()), ("prompt", pa.string())])
    with replacing(path) as staging, pyarrow.parquet.ParquetWriter(staging, schema) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            group = rows[start : start + ROW_GROUP]
            images = [(folder / row["image"]).read_bytes() for row in group]
            table = pa.table([images, [row["prompt"] for row in group]], schema=schema)
            writer.write_table(table)


def run_way(way: str, rows: Path, model: str, folder: Path) -> dict[str, float]:
    """Measure one way on one manifest in a new process, or read what was measured before.

    Args:
        way: A name of `scale_run.WAYS`.
        rows: The manifest.
        model: A name or path that `stablepref.load` takes.
        folder: Of this way and manifest alone; keeps the measurement.

    Raises:
        ValueError: The measurement in the folder is of another model.
        RuntimeError: The process failed; with the last lines of its output.
    """
    kept = folder / "measured.json"
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before["model"] != model:
            msg = f"{kept} is of the model {before['model']}, not {model}: give another --workdir"
            raise ValueError(msg)
        found: dict[str, float] = before["numbers"]
        return found
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left behind
    folder.mkdir(parents=True)
    paths = {"rows": str(rows.resolve()), "to": str(folder.resolve() / "out")}
    began = time.perf_counter()
    measured = measure_apart(
        [sys.executable, "-P", "-m", "stablepref.benchmarks.speed.scale_run"],
        {"way": way, "model": model, **paths},
        what=f"{way} of {rows}",
        threads=torch.get_num_threads(),
        environment=ENVIRONMENT,
    )
    numbers = {**measured, "seconds": time.perf_counter() - began}
    with replacing(kept) as staging:
        staging.write_text(json.dumps({"model": model, "numbers": numbers}), encoding="utf-8")
    return numbers


def growth(measured: Mapping[int, Mapping[str, float]]) -> list[dict[str, float]]:
    """What each further image costs between one size and the next, in seconds and bytes."""
    steps = []
    for (fewer, less), (more, much) in pairwise(sorted(measured.items())):
        count = more - fewer
        steps.append(
            {
                "from": fewer,
                "to": more,
                "cpu_seconds": (much["cpu_seconds"] - less["cpu_seconds"]) / count,
                "seconds": (much["seconds"] - less["seconds"]) / count,
                "bytes": (much["peak_bytes"] - less["peak_bytes"]) / count,
            }
        )
    return steps


def scale_table(report: Mapping[str, Any]) -> Table:
    """One row for each way and number of images."""
    machine = report["machine"]
    title = f"{report['model']}, {machine['cpu']}, {machine['threads']} threads"
    table = Table(
        "way",
        "images",
        "CPU, s",
        "clock, s",
        "CPU of each further image, ms",
        "peak memory, MB",
        "memory of each further image, B",
        title=title,
    )
    for way, measured in report["ways"].items():
        steps = {step["to"]: step for step in growth(measured)}
        for size, row in measured.items():
            step = steps.get(size)
            table.add_row(
                way,
                f"{size:,}",
                f"{row['cpu_seconds']:.1f}",
                f"{row['seconds']:.1f}",
                f"{step['cpu_seconds'] / MILLI:.2f}" if step else "-",
                f"{row['peak_bytes'] / MEGA:.0f}",
                f"{step['bytes']:.0f}" if step else "-",
            )
    return table


def scale(
    workdir: Annotated[Path, typer.Option(help="Keeps the drawings and measurements.")] = Path(
        "scale-work"
    ),
    sizes: Annotated[list[int], typer.Option("--size", min=1, help="Images.")] = SIZES,
    ways: Annotated[
        list[str] | None, typer.Option("--way", help=f"Some of: {', '.join(WAYS)}; else all.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name or path of the scorer.")] = "shapes",
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Score more and more drawings of the laboratory, and report time and memory.

    The same command resumes a killed run: what --workdir holds is not measured again.
    """
    chosen = ways or list(WAYS)
    if unknown := [name for name in chosen if name not in WAYS]:
        raise typer.BadParameter(f"--way {', '.join(unknown)}: expected {', '.join(WAYS)}")
    manifests = draw_rows(workdir, sorted(set(sizes)))
    report = {
        "what": "scale",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(torch.device("cpu")),
        "model": model,
        "side": SIDE,
        "ways": {
            way: {
                size: run_way(way, rows, model, workdir / "measured" / f"{way}-{size}")
                for size, rows in manifests.items()
            }
            for way in track(chosen, description="scoring")
        },
    }
    Console(width=WIDTH, soft_wrap=True).print(scale_table(report))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(scale)
