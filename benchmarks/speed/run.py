"""Run the contenders of the speed benchmark, each in a process of its own, and sum them up."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from stablepref.evaluation.agreement import spearman_rho, tau_b

from .own_process import measure_apart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRIPT = Path(__file__).with_name("contender.py")
COMPILED = "stablepref compiled"
OURS = ("stablepref", "stablepref float32", COMPILED)
REFERENCE = "stablepref float32"
HOW_TO = {
    "hpsv2": (
        "pip install --no-deps hpsv2 clint args webdataset braceexpand pytest-split, and copy "
        "open_clip's bpe_simple_vocab_16e6.txt.gz to hpsv2/src/open_clip/"
    ),
    "imscore": "pip install --no-deps imscore loguru",
}


@final
@dataclass(frozen=True)
class Result:
    """What one contender did.

    Attributes:
        seconds: Of scoring all pictures, in each round.
        cpu_seconds: Processor time of the same, all threads together.
        first_seconds: From nothing to the first picture's score, median over rounds.
        second_seconds: The same call again.
        peak_bytes: Largest resident memory of its process.
        peak_gpu_bytes: Largest memory on the GPU; 0 without one.
        scores: Of all pictures, in the first round.
        versions: Of the packages it consists of.
        unavailable: Why it did not run, else None; nothing else is set then.
    """

    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    first_seconds: float = 0.0
    second_seconds: float = 0.0
    peak_bytes: int = 0
    peak_gpu_bytes: int = 0
    scores: tuple[float, ...] = ()
    versions: Mapping[str, str] | None = None
    unavailable: str | None = None

    def rates(self) -> tuple[float, ...]:
        """Pictures per second in each round."""
        return tuple(len(self.scores) / seconds for seconds in self.seconds)

    def rate(self) -> float:
        """Pictures per second, median over rounds."""
        return statistics.median(self.rates())


def run_rounds(
    names: Sequence[str], job: Mapping[str, Any], *, rounds: int, pythons: Mapping[str, str]
) -> dict[str, Result]:
    """Let the contenders take turns, so that a machine that changes its pace is fair to all.

    Args:
        names: Contenders, names of `contender.CONTENDERS`.
        job: What they score, the job of `contender.measure` without the contender.
        rounds: How often each runs.
        pythons: Interpreter by contender.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            if found[name] and "scores" not in found[name][0]:
                continue
            measured = run_contender(name, job, python=pythons[name])
            found[name].append(measured)
    return {name: _summary(name, measured) for name, measured in found.items()}


def run_contender(name: str, job: Mapping[str, Any], *, python: str) -> dict[str, Any]:
    """Measure one contender in a new process.

    Raises:
        RuntimeError: It failed for another reason than being absent; with the end of its output.
    """
    warm_up = name == COMPILED or job["device"] != "cpu"
    command = [python, "-P", "-W", "ignore", str(SCRIPT)]
    whole = {**job, "contender": name, "warm_up": warm_up}
    return measure_apart(command, whole, what=name, threads=job["threads"])


def _summary(name: str, rounds: Sequence[dict[str, Any]]) -> Result:
    first = rounds[0]
    if "missing" in first:
        advice = f"; {HOW_TO[name]}" if name in HOW_TO else ""
        return Result(unavailable=f"is not installed ({first['missing']}{advice})")
    if "unavailable" in first:
        return Result(unavailable=first["unavailable"])
    return Result(
        seconds=tuple(r["seconds"] for r in rounds),
        cpu_seconds=tuple(r["cpu_seconds"] for r in rounds),
        first_seconds=statistics.median(r["first_seconds"] for r in rounds),
        second_seconds=statistics.median(r["second_seconds"] for r in rounds),
        peak_bytes=max(r["peak_bytes"] for r in rounds),
        peak_gpu_bytes=max(r["peak_gpu_bytes"] for r in rounds),
        scores=tuple(first["scores"]),
        versions=first["versions"],
    )


def rank_agreement(results: Mapping[str, Result]) -> dict[str, tuple[float, float]]:
    """Spearman's rho and Kendall's tau of each contender's scores with ours in float32."""
    if REFERENCE not in results:
        return {}
    reference = results[REFERENCE].scores
    return {
        name: (spearman_rho(reference, result.scores), tau_b(reference, result.scores))
        for name, result in results.items()
        if result.unavailable is None
    }
