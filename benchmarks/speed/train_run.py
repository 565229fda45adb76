"""Run the ways of training in turn, and compare their pairs per second."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .own_process import measure_apart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODULE = "stablepref.benchmarks.speed.train"
PLAIN = "plain loop"
WAYS = [PLAIN, "plain loop bf16", "pairs", "groups", "pairs bf16", "groups bf16"]
WORKERS = 2  # that decode, processes or threads
GIGA = 1e9


def run_training(
    names: Sequence[str], job: Mapping[str, Any], *, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """What each way measured in each round; they take turns.

    Args:
        names: Ways, names of `WAYS`.
        job: What they train and on what, the job of `train.measure` without the way.
        rounds: How often each runs.

    Raises:
        RuntimeError: One failed; with the last lines of its output.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, "-P", "-W", "ignore", "-m", MODULE]
            whole = {**job, "contender": name}
            found[name].append(measure_apart(command, whole, what=name, threads=job["threads"]))
    return found


def pair_rates(rounds: Sequence[Mapping[str, Any]], pairs: int) -> list[float]:
    """Pairs per second of each round, its first step left out."""
    return [pairs * len(row["seconds"]) / sum(row["seconds"]) for row in rounds]


def train_table(report: Mapping[str, Any]) -> Table:
    """One row for each way."""
    job = report["job"]
    table = Table(
        "way",
        "pairs/s",
        "images a pair",
        "beside the plain loop",
        "beside it in bf16",
        "peak memory, GB",
        "of the matrix rate",
        title=f"{job['pairs']} pairs, {job['views']} views, {job['threads']} threads, "
        f"{job['steps']} steps after the first, {report['rounds']} rounds",
    )
    found = report["contenders"]
    every = {name: pair_rates(rows, job["pairs"]) for name, rows in found.items()}
    rates = {name: statistics.median(each) for name, each in every.items()}
    for name, rows in found.items():
        images = sum(sum(row["images"]) for row in rows)
        images /= sum(job["pairs"] * len(row["images"]) for row in rows)
        beside = [
            f"{rates[name] / rates[other]:.2f}x" if other in rates else "-"
            for other in (PLAIN, f"{PLAIN} bf16")
        ]
        dtype = "bfloat16" if name.endswith("bf16") else "float32"
        work = rates[name] * images * (1 + job["views"]) * report["flops"]
        peak = max(row["peak_gpu_bytes"] or row["peak_bytes"] for row in rows)
        table.add_row(
            name,
            f"{rates[name]:.2f} ({min(every[name]):.2f} to {max(every[name]):.2f})",
            f"{images:.2f}",
            *beside,
            f"{peak / GIGA:.1f}",
            f"{work / report['matrix_rates'][dtype]:.0%}",
        )
    return table
