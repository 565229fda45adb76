"""Scoring, training and best of n on an accelerator, in minutes.

`python -m stablepref.benchmarks.speed.accelerator` downloads nothing: weights are random and
pictures made up. With `--device cpu` and a small model it runs anywhere, as in the tests.
"""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import torch
import typer
from open_clip import get_model_config
from rich.console import Console
from rich.table import Table

import stablepref
from stablepref.integrations.best_of_n import best_of_n
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import automatic_dtype

from . import train
from .flops import tower_flops, training_flops
from .machine import machine_kind, matrix_rate, synchronize
from .synthetic import write_groups, write_jpegs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROMPT: Final = "a red circle left of a blue star"
GROUP: Final = 9
"""Images of a ranked group, as many as ImageReward's data have at most."""
GIGA: Final = 1e9


def measure_scoring(
    backbone: Mapping[str, Any], paths: Sequence[Path], batches: Sequence[int], device: torch.device
) -> list[dict[str, float]]:
    """Pictures a second for each batch size: from files, decoding included, and the tower alone.

    Args:
        backbone: open_clip's configuration.
        paths: Pictures, scored twice; the second time is measured.
        batches: Batch sizes.
        device: Where the model runs, in the number type that `load` would choose.
    """
    side = backbone["vision_cfg"]["image_size"]
    scorer = CLIPScorer(
        backbone, preprocess=Preprocess("clip", side), name="speed", preference_scale=1.0
    ).eval()
    scorer = scorer.to(device=device, dtype=automatic_dtype(device))
    files = [str(path) for path in paths]
    rows = []
    for batch in batches:
        scorer.score(files[: 2 * batch], PROMPT, batch_size=batch, progress=False)
        begun = time.perf_counter()
        scorer.score(files, PROMPT, batch_size=batch, progress=False)
        whole = time.perf_counter() - begun
        inputs = torch.randn(batch, 3, side, side, device=device)
        with torch.inference_mode():
            scorer.encode_inputs(inputs)
            synchronize(device)
            begun, count = time.perf_counter(), 0
            while not count or time.perf_counter() - begun < min(3.0, whole):
                scorer.encode_inputs(inputs)
                synchronize(device)
                count += 1
        tower = count * batch / (time.perf_counter() - begun)
        rows.append({"batch": batch, "pictures": len(files) / whole, "tower": tower})
    return rows


def measure_training(
    backbone: Mapping[str, Any],
    groups: Path,
    *,
    pairs: int,
    blocks: tuple[int, int] | None,
    device: torch.device,
) -> dict[str, Any]:
    """Steps of `batching="groups"` under bfloat16 autocast, see `train.measure`.

    Args:
        backbone: open_clip's configuration.
        groups: Ranked groups.
        pairs: Of a batch.
        blocks: Image and text blocks that train; None for all.
        device: Where.
    """
    half = automatic_dtype(device) == torch.bfloat16
    return train.measure(
        {
            "contender": "groups bf16" if half else "groups",
            "data": str(groups),
            "backbone": backbone,
            "image_blocks": blocks and blocks[0],
            "text_blocks": blocks and blocks[1],
            "pairs": pairs,
            "views": 3,
            "steps": 3,
            "workers": 4,
            "threads": torch.get_num_threads(),
            "device": str(device),
        }
    )


def measure_best_of_n(n: int, steps: int, device: torch.device) -> dict[str, float]:
    """Candidates a second of the bundled pipeline, by batch size; 0 for the chosen one."""
    pipe = load_pipeline("shapes", dtype=None, device=device)
    scorer = stablepref.load("shapes", device=str(device))
    found = {}
    for batch in (1, 0):
        begun = time.perf_counter()
        best_of_n(
            pipe,
            PROMPT,
            scorer,
            n if batch == 0 else max(1, n // 8),
            batch_size=batch or None,
            num_inference_steps=steps,
            progress=False,
        )
        count = n if batch == 0 else max(1, n // 8)
        found[str(batch)] = count / (time.perf_counter() - begun)
    return found


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Scoring by batch size, and one row each for training and best of n."""
    rate, flops = report["matrix_rate"], report["flops"]
    scoring = Table("batch", "pictures/s from files", "tower alone", "of the matrix rate")
    for row in report["scoring"]:
        share = row["pictures"] * flops["image"] / rate
        alone = row["tower"] * flops["image"] / rate
        scoring.add_row(
            str(row["batch"]),
            f"{row['pictures']:.1f} ({share:.0%})",
            f"{row['tower']:.1f}",
            f"{alone:.0%}",
        )
    measured = report["training"]
    work = sum(measured["images"]) * (1 + 3) * flops["training"]
    other = Table("what", "a second", "of the matrix rate")
    pairs = report["pairs"] * len(measured["seconds"]) / sum(measured["seconds"])
    share = work / sum(measured["seconds"]) / rate
    other.add_row(
        f"training, {report['pairs']} pairs, 3 views", f"{pairs:.1f} pairs", f"{share:.0%}"
    )
    for batch, count in report["best_of_n"].items():
        size = "batches of the chosen size" if batch == "0" else "one at a time"
        other.add_row(f"best of n, {size}", f"{count:.1f} candidates", "-")
    return [scoring, other]


def accelerator(
    device: Annotated[str, typer.Option(help="cuda, cpu, ...")] = "cuda",
    backbone: Annotated[str, typer.Option(help="Model, by its name in open_clip.")] = "ViT-H-14",
    blocks: Annotated[
        tuple[int, int] | None, typer.Option(help="Image and text blocks that train; or all.")
    ] = (19, 9),
    batches: Annotated[list[int], typer.Option("--batch", min=1, help="To score with.")] = [  # noqa: B006 (typer takes a copy)
        *(16, 64, 128, 256)
    ],
    pictures: Annotated[int, typer.Option(min=1, help="Made up, 512 pixels wide.")] = 1024,
    pairs: Annotated[int, typer.Option(min=1, help="Of a training step.")] = 64,
    candidates: Annotated[int, typer.Option(min=1, help="Of best of n.")] = 256,
    workdir: Annotated[Path, typer.Option(help="Keeps the pictures.")] = Path("accelerator-work"),
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Scoring from files, training at the paper's settings, and best of n: some minutes."""
    place = torch.device(device)
    sizes = get_model_config(backbone)
    if sizes is None:
        raise typer.BadParameter(f"--backbone {backbone}: open_clip has no model of this name")
    sizes = {name: sizes[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    report = measure_all(
        sizes,
        device=place,
        blocks=blocks,
        batches=batches,
        pictures=pictures,
        pairs=pairs,
        candidates=candidates,
        workdir=workdir,
    )
    report["model"] = backbone
    console = Console(width=120, soft_wrap=True)
    for table in tables(report):
        console.print(table)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


def measure_all(
    backbone: Mapping[str, Any],
    *,
    device: torch.device,
    blocks: tuple[int, int] | None,
    batches: Sequence[int],
    pictures: int,
    pairs: int,
    candidates: int,
    workdir: Path,
    steps: int = 25,
    side: int = 512,
) -> dict[str, Any]:
    """Everything, with date and kind of the machine; see `accelerator` for the arguments."""
    paths = write_jpegs(workdir / "pictures", max(pictures, GROUP), side=side)
    groups = write_groups(workdir / "groups.jsonl", paths, size=GROUP)
    dtype = automatic_dtype(device)
    rate = matrix_rate(dtype, device)
    return {
        "what": "speed accelerator",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(device),
        "dtype": str(dtype).removeprefix("torch."),
        "matrix_rate": rate,
        "flops": {
            **tower_flops(backbone)._asdict(),
            "training": training_flops(backbone, blocks and blocks[0]),
        },
        "pairs": pairs,
        "scoring": measure_scoring(backbone, paths[:pictures], batches, device),
        "training": measure_training(backbone, groups, pairs=pairs, blocks=blocks, device=device),
        "best_of_n": measure_best_of_n(candidates, steps, device),
    }


if __name__ == "__main__":
    typer.run(accelerator)
