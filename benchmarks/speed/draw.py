"""Pictures of many prompts: one at a time, in batches, and in batches side by side."""

from __future__ import annotations

import statistics
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table

from stablepref.integrations.best_of_n.candidates import generate_all
from stablepref.integrations.best_of_n.grouping import Wanted, batch_size_for
from stablepref.integrations.best_of_n.making import STREAMS, Generated
from stablepref.integrations.diffusion.load import load_pipeline

from ..shapes.world.prompts import lab_prompts
from .busy import busy_process
from .machine import synchronize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from stablepref.integrations.diffusion.pipelines import Pipeline

ALONE: Final = "one at a time"
BATCHES: Final = "batches"
SIDE_BY_SIDE: Final = "batches side by side"


def measure(
    pipeline: str,
    *,
    prompts: int,
    steps: int,
    guidance: float,
    device: torch.device,
    rounds: int,
    busy: bool,
) -> dict[str, Any]:
    """Pictures a second of each way, which take turns, and how far their pictures are apart.

    One picture at a time gets as many pictures as fill a batch, so that a round stays short; the
    others get one of each prompt.

    Args:
        pipeline: What `load_pipeline` takes.
        prompts: Number of prompts: the laboratory's 200, again from the first beyond that.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        device: Where the pipeline runs.
        rounds: How often each way is measured.
        busy: Beside a busy process.

    Returns:
        "batch", the batch that was chosen; "rates", pictures a second in each round by way;
        "cpu_seconds", the processor's time for a picture, likewise, which hardly depends on what
        else runs; "apart", the largest difference from a picture made alone, in levels, by way.
    """
    pipe = load_pipeline(pipeline, dtype=None, device=device)
    arguments: dict[str, object] = {"num_inference_steps": steps, "guidance_scale": guidance}
    texts = [one.prompt for one in islice(cycle(lab_prompts()), prompts)]
    wanted = [Wanted(i, text, i) for i, text in enumerate(texts)]
    batch = batch_size_for(pipe, arguments, None)
    few = wanted[: min(batch, prompts)]
    ways: dict[str, tuple[Sequence[Wanted], int | None, int]] = {
        ALONE: (few, 1, 1),
        BATCHES: (wanted, None, 1),
        SIDE_BY_SIDE: (wanted, None, STREAMS),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    levels: dict[str, int] = dict.fromkeys((BATCHES, SIDE_BY_SIDE), 0)
    _draw(pipe, few[:1], arguments, batch_size=1, streams=1)  # kernels are chosen on the first call
    with busy_process(wanted=busy):
        for _ in range(rounds):
            found = {}
            for way, (asked, size, streams) in ways.items():
                begun, used = time.perf_counter(), time.process_time()
                found[way] = _draw(pipe, asked, arguments, batch_size=size, streams=streams)
                synchronize(device)
                rates[way].append(len(asked) / (time.perf_counter() - begun))
                cpu[way].append((time.process_time() - used) / len(asked))
            for way, before in levels.items():
                gaps = [np.abs(found[way][i] - image).max() for i, image in found[ALONE].items()]
                levels[way] = max(before, int(max(gaps)))
    return {"batch": batch, "rates": rates, "cpu_seconds": cpu, "apart": levels}


def _draw(
    pipe: Pipeline,
    wanted: Sequence[Wanted],
    arguments: dict[str, object],
    *,
    batch_size: int | None,
    streams: int,
) -> dict[int, np.ndarray[Any, np.dtype[np.int16]]]:
    """The pictures by index."""
    made = {}
    for batch in generate_all(
        pipe, wanted, batch_size=batch_size, arguments=arguments, streams=streams
    ):
        for one in batch:
            assert isinstance(one, Generated), "errors are raised"
            made[one.index] = np.asarray(one.image, dtype=np.int16)
    return made


def draw_table(report: dict[str, Any]) -> Table:
    """Pictures a second of each way, beside one at a time."""
    beside = ", beside a busy process" if report["busy"] else ""
    table = Table(
        "way",
        "pictures/s",
        "beside one at a time",
        "CPU a picture, s",
        "largest difference, levels",
        title=f"{report['prompts']} prompts, {report['steps']} steps, batches of "
        f"{report['measured']['batch']}, {report['rounds']} rounds{beside}",
    )
    measured = report["measured"]
    plain = statistics.median(measured["rates"][ALONE])
    for way, rates in measured["rates"].items():
        median = statistics.median(rates)
        spread = f" ({min(rates):.2f} to {max(rates):.2f})" if rates[1:] else ""
        gap = measured["apart"].get(way)
        table.add_row(
            way,
            f"{median:.2f}{spread}",
            f"{median / plain:.2f}x",
            f"{statistics.median(measured['cpu_seconds'][way]):.3f}",
            "-" if gap is None else str(gap),
        )
    return table
