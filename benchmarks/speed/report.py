"""The speed benchmark's report in words and as a table."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GIGA = 1e9
OURS = ("stablepref", "stablepref float32")
"""Of these the first that was measured is what others are compared with."""


def score_table(report: Mapping[str, Any]) -> Table:
    """One row for each contender."""
    title = (
        f"{report['pictures']} pictures, one prompt, {report['model']}, "
        f"{_machine(report['machine'])}, {report['rounds']} rounds"
    )
    table = Table(
        "contender",
        "pictures/s",
        "ours is faster by",
        "processor s/picture",
        "of the matrix rate",
        "first call, s",
        "second call, s",
        "peak memory, GB",
        "of pictures, GFLOP/s",
        "rho",
        "tau",
        title=title,
    )
    contenders = report["contenders"]
    ours = next(
        (median_rate(contenders[name], report) for name in OURS if name in contenders), None
    )
    for name, row in contenders.items():
        if row["unavailable"]:
            table.add_row(name, "not measured", *["-"] * 9)
            continue
        rates = [report["pictures"] / seconds for seconds in row["seconds"]]
        rate = statistics.median(rates)
        rho, tau = report["agreement"].get(name, (None, None))
        table.add_row(
            name,
            f"{rate:.3f}" + (f" ({min(rates):.3f} to {max(rates):.3f})" if rates[1:] else ""),
            f"{ours / rate:.2f}x" if ours else "-",
            f"{processor_seconds(row, report):.2f}",
            f"{processor_share(row, report):.0%}",
            f"{row['first_seconds']:.1f}",
            f"{row['second_seconds']:.2f}",
            f"{row['peak_bytes'] / GIGA:.1f}"
            + (f" + {row['peak_gpu_bytes'] / GIGA:.1f} GPU" if row["peak_gpu_bytes"] else ""),
            f"{rate * report['flops']['image'] / GIGA:.0f}",
            "-" if rho is None else f"{rho:.5f}",
            "-" if tau is None else f"{tau:.5f}",
        )
    return table


def median_rate(row: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """Pictures per second of a contender."""
    return report["pictures"] / statistics.median(row["seconds"])


def processor_seconds(row: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """Processor time of a picture, median over rounds, all threads together."""
    return statistics.median(row["cpu_seconds"]) / report["pictures"]


def processor_share(row: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """The pictures' part of what float32 products would do in the same processor time.

    Decoding, preprocessing and the prompt are in the time and not in the work. It compares with
    the clock's share on an idle machine, and holds beside other programs too.
    """
    work = report["flops"]["image"] / processor_seconds(row, report)
    return work / report["processor_rate"]


def sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not show: the machine's rates, our share of them, the limit, matrices."""
    rates, flops = report["matrix_rates"], report["flops"]
    yield (
        f"Measured matrix products: {rates['float32'] / GIGA:.0f} GFLOP/s in float32, "
        f"{rates['bfloat16'] / GIGA:.0f} in bfloat16. A picture takes "
        f"{flops['image'] / GIGA:.1f} GFLOP, a padded prompt {flops['text'] / GIGA:.1f}. "
        "In a second of processor time float32 products do "
        f"{report['processor_rate'] / GIGA:.0f} GFLOP."
    )
    row = next((report["contenders"][name] for name in OURS if name in report["contenders"]), None)
    if row is not None:
        used = median_rate(row, report) * flops["image"]
        shares = [f"{used / rates[dtype]:.1%} of the {dtype} rate" for dtype in _dtypes(rates)]
        yield f"stablepref's pictures reach {', '.join(shares)}, decoding and all included."
    if "bfloat16" in _dtypes(rates):
        limit = rates["bfloat16"] / rates["float32"] * (1 + flops["text"] / flops["image"])
        yield (
            f"At these rates a perfect bfloat16 scorer would be {limit:.2f}x as fast as a perfect "
            "float32 one that encodes the prompt with every picture."
        )
    else:
        yield "There are no units for bfloat16 here: such products are emulated."
    for name, row in report["contenders"].items():
        if row["unavailable"]:
            yield f"{name} {row['unavailable']}"
    many = report["prompts_times_pictures"]
    if many:
        ratio = many["naive_seconds_extrapolated"] / many["seconds"]
        yield (
            f"{many['prompts']} prompts x {many['pictures']} pictures: {many['seconds']:.0f} s by "
            f"score_matrix; pair by pair {many['naive_seconds_extrapolated'] / 3600:.1f} h, "
            f"{ratio:.0f}x as long (extrapolated from {many['naive_pairs_measured']} pairs)."
        )


def _dtypes(rates: Mapping[str, float]) -> list[str]:
    """The number types that are worth a comparison: bfloat16 only where it is the faster one."""
    return ["float32"] if rates["bfloat16"] < rates["float32"] else ["bfloat16", "float32"]


def _machine(kind: Mapping[str, Any]) -> str:
    return f"{kind.get('gpu') or kind['cpu']}, {kind['threads']} threads, torch {kind['torch']}"
