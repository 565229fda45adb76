"""What more images cost: `python -m stablepref.benchmarks.speed.scale`.

Synthetic JPEG files are scored in several ways, each number of images in a new process, by a scorer
so small that what is measured is everything around it. Two claims are tested: processor time grows
in proportion to the number of images, and memory does not grow with it.
"""

from __future__ import annotations

import datetime
import json
import os
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
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stablepref.models.clip import CLIPScorer
from stablepref.output.durable import replacing
from stablepref.preprocess.preprocess import Preprocess

from .machine import machine_kind
from .matrix import made_up_prompts
from .own_process import measure_apart
from .scale_run import WAYS, groups_of, parquet_of
from .synthetic import write_groups, write_jpegs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIZES = [100, 1_000, 10_000]
SIDE = 64
DISTINCT = 1_000
"""Pictures that differ; further files are links to them."""
GROUP = 4
"""Images of a ranked group."""
ROW_GROUP = 250
MEGA, MILLI = 1e6, 1e-3
# Ray's workers would otherwise yield to all other processes, which is no fair clock.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
WIDTH = 120  # of the table, whatever the terminal: it is also read from files
SMALLEST: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"width": 64, "heads": 1, "layers": 1},
}
"""open_clip's configuration of the smallest scorer: a block a tower."""


def write_rows(folder: Path, sizes: Sequence[int], *, side: int = SIDE) -> dict[int, Path]:
    """Write JPEG files, each with a prompt of its own, and a manifest of the first n for each size.

    Beside each manifest lie a parquet file of the same rows with the pictures' bytes, and ranked
    groups of the same images. Equal calls write equal files. Pictures that exist are kept, so that
    the same call resumes a killed one.

    Args:
        folder: Where to write; created if it is missing.
        sizes: Numbers of images, at least those of one group.
        side: Side of the pictures in pixels.

    Returns:
        The manifests by size.
    """
    most = max(sizes)
    distinct = write_jpegs(folder / "distinct", min(most, DISTINCT), side=side)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    texts = made_up_prompts(min(most, DISTINCT))
    images, rows = [], []
    for number in track(range(most), description="writing"):
        path = pictures / f"{number:06d}.jpg"
        if not path.exists():
            _link(distinct[number % len(distinct)], path)
        images.append(path)
        prompt = f"{texts[number % len(texts)]}, number {number}"
        rows.append({"image": f"pictures/{path.name}", "prompt": prompt})
    manifests = {}
    for size in sizes:
        manifests[size] = folder / f"rows-{size}.jsonl"
        manifests[size].write_text("".join(map(_line, rows[:size])), encoding="utf-8")
        _write_parquet(parquet_of(manifests[size]), folder, rows[:size])
        write_groups(groups_of(manifests[size]), images[:size], size=GROUP)
    return manifests


def _link(picture: Path, path: Path) -> None:
    """Another name of a file, or a copy where the disk has no such links."""
    try:
        os.link(picture, path)
    except OSError:
        shutil.copyfile(picture, path)


def smallest_scorer(folder: Path) -> Path:
    """Write a scorer of one block a tower with fixed random weights, if it is not there yet."""
    if not (folder / "config.json").is_file():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            scorer = CLIPScorer(
                SMALLEST,
                preprocess=Preprocess("clip", SMALLEST["vision_cfg"]["image_size"]),
                name="smallest",
                preference_scale=1.0,
            )
        scorer.eval().save_pretrained(folder)
    return folder


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
    sizes: Annotated[list[int], typer.Option("--size", min=GROUP, help="Images.")] = SIZES,
    ways: Annotated[
        list[str] | None, typer.Option("--way", help=f"Some of: {', '.join(WAYS)}; else all.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name or path of the scorer.", show_default="one of a block a tower"),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw them: an .svg file.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Score more and more synthetic JPEGs, and report time and memory.

    The same command resumes a killed run, and sizes may be measured one after the other: what
    --workdir holds is not measured again.
    """
    chosen = ways or list(WAYS)
    if unknown := [name for name in chosen if name not in WAYS]:
        raise typer.BadParameter(f"--way {', '.join(unknown)}: expected {', '.join(WAYS)}")
    if figure is not None:
        from .scale_figure import growth_figure, save_figure  # noqa: PLC0415 (matplotlib, an extra)
    manifests = write_rows(workdir, sorted(set(sizes)))
    model = model or str(smallest_scorer(workdir / "smallest"))
    report: dict[str, Any] = {
        "what": "scale",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(torch.device("cpu")),
        "model": Path(model).name,
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
    if figure is not None:
        save_figure(growth_figure(report["ways"]), figure)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(scale)
