"""One way of scoring one number of images, measured in a process of its own.

    python -P -m stablepref.benchmarks.speed.scale_run JOB.json

The job names the way, the rows and the model; the measurements go to the file that it names.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet

import stablepref
from stablepref.cli import main as cli

from .contender import peak_bytes
from .own_process import ProcessTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Job = dict[str, Any]
RAY_BATCH = 64  # rows handed to a worker at once


def stream(job: Job) -> None:
    """`Scorer.stream` of two generators, results dropped as they come."""
    scorer = stablepref.load(job["model"], device="cpu")
    for _ in scorer.stream(_cells(job, "image"), _cells(job, "prompt"), progress=False):
        pass


def one_prompt(job: Job) -> None:
    """`Scorer.stream` with one prompt for all images, so that no prompts are cached."""
    scorer = stablepref.load(job["model"], device="cpu")
    for _ in scorer.stream(_cells(job, "image"), "a red circle", progress=False):
        pass


def score(job: Job) -> None:
    """`stablepref.score` of lists, with the scores of all at the end."""
    images, prompts = (list(_cells(job, name)) for name in ("image", "prompt"))
    stablepref.score(images, prompts, model=job["model"], device="cpu", progress=False)


def command(job: Job) -> None:
    """`stablepref score` of a manifest, into a file."""
    rows, model, out = job["rows"], job["model"], f"{job['to']}.jsonl"
    _command("score", rows, "-m", model, "--device", "cpu", "--out", out)


def bench(job: Job) -> None:
    """`stablepref bench` of finished images, tables included."""
    rows, model, out = job["rows"], job["model"], job["to"]
    _command("bench", rows, "-m", f"drawn={rows}", "-s", model, "--device", "cpu", "-o", out)


def parquet(job: Job) -> None:
    """`Scorer.stream` of the rows of a parquet file, whose images are bytes."""
    scorer = stablepref.load(job["model"], device="cpu")
    file = pyarrow.parquet.ParquetFile(str(parquet_of(Path(job["rows"]))))

    def cells(name: str) -> Iterator[Any]:
        for batch in file.iter_batches(batch_size=RAY_BATCH, columns=[name]):
            yield from batch[name].to_pylist()

    for _ in scorer.stream(cells("image"), cells("prompt"), progress=False):
        pass


def evaluation(job: Job) -> None:
    """`stablepref eval` of ranked groups, every score and measure into a file."""
    groups, out = str(groups_of(Path(job["rows"]))), f"{job['to']}.json"
    _command("eval", groups, "-s", job["model"], "--device", "cpu", "--out", out)


def on_ray(job: Job, *, workers: int) -> None:
    """`score_dataset` of the parquet file, on Ray on this machine."""
    import ray  # noqa: PLC0415 (an extra)

    from stablepref.integrations.ray_data import score_dataset  # noqa: PLC0415

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(parquet_of(Path(job["rows"]))), columns=["image", "prompt"])
    scored = score_dataset(
        rows, job["model"], workers=workers, batch_size=RAY_BATCH, num_cpus=1 / workers
    )
    for _ in scored.select_columns(["score"]).iter_batches(batch_format="pyarrow"):
        pass


WAYS: dict[str, Callable[[Job], None]] = {
    "stream": stream,
    "one-prompt": one_prompt,
    "score": score,
    "command": command,
    "bench": bench,
    "eval": evaluation,
    "parquet": parquet,
    "ray": partial(on_ray, workers=1),
    "ray-2": partial(on_ray, workers=2),
}


def measure(job: Job) -> dict[str, float]:
    """Processor seconds, start included, and the largest memory of any one process.

    The processes that Ray starts count as well.
    """
    with ProcessTree() as started:
        WAYS[job["way"]](job)
    return {
        "cpu_seconds": time.process_time() + started.cpu_seconds(),
        "peak_bytes": max(peak_bytes(), started.peak_bytes),
    }


def parquet_of(rows: Path) -> Path:
    """The parquet file of a manifest."""
    return rows.with_suffix(".parquet")


def groups_of(rows: Path) -> Path:
    """The ranked groups of a manifest."""
    return rows.with_name(rows.name.replace("rows-", "groups-"))


def _cells(job: Job, name: str) -> Iterator[str]:
    folder = Path(job["rows"]).parent
    with Path(job["rows"]).open(encoding="utf-8") as lines:
        for line in lines:
            cell: str = json.loads(line)[name]
            yield str(folder / cell) if name == "image" else cell


def _command(*arguments: str) -> None:
    sys.argv = ["stablepref", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise


def main(path: Path) -> None:
    """Read the job, measure, write."""
    job = json.loads(path.read_text())
    Path(job["out"]).write_text(json.dumps(measure(job)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
