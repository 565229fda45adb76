"""Speed of scoring and training, beside other packages: `python -m stablepref.benchmarks.speed`.

A peer that is not installed is reported with the command that installs it.
"""

from __future__ import annotations

import datetime
import gc
import json
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from open_clip import get_model_config
from rich.console import Console

import stablepref
from stablepref.images.paths import existing_files
from stablepref.models.sizes import VIT_H_14, VIT_L_14

from .contender import CONTENDERS
from .flops import imagereward_flops, tower_flops, training_flops
from .machine import machine_kind, matrix_rate
from .matrix import made_up_prompts, prompts_times_pictures
from .report import score_table, sentences
from .run import COMPILED, OURS, rank_agreement, run_rounds
from .seeded import seeded_checkpoint
from .serve import measure, serve_table
from .train_run import WAYS, WORKERS, run_training, train_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .flops import TowerFlops

MEASURED: Mapping[str, Callable[[], TowerFlops]] = {
    "hps-v2.1": partial(tower_flops, VIT_H_14),
    "clip-vit-l-14": partial(tower_flops, VIT_L_14),
    "imagereward-v1": imagereward_flops,
}
"""What counts the operations of each model that scoring is measured with."""
WIDTH = 140  # of the table, whatever the terminal: it is also read from files
USUAL = [name for name in CONTENDERS if name != COMPILED]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def speed() -> None:
    """Measure speed: a command each for scoring, training, serving and the number of threads."""


@app.command()
def score(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    images: Annotated[Path, typer.Option(help="Folder of pictures.")],
    workdir: Annotated[Path, typer.Option(help="Keeps the seeded checkpoint, 2 GB.")] = Path(
        "speed-work"
    ),
    model: Annotated[str, typer.Option(help=f"One of: {', '.join(MEASURED)}.")] = "hps-v2.1",
    n: Annotated[int, typer.Option(min=2, help="Pictures to score.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 1,
    contenders: Annotated[
        list[str], typer.Option("--contender", help=f"Some of: {', '.join(CONTENDERS)}.")
    ] = USUAL,
    peers_python: Annotated[
        str, typer.Option(help="Interpreter of an environment that has the peers.")
    ] = sys.executable,
    batch_size: Annotated[int, typer.Option(min=1, help="Of all contenders that batch.")] = 16,
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 for its default.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; the peers follow it.")] = "cpu",
    prompt: Annotated[str, typer.Option(help="The prompt of all pictures.")] = (
        "a red fox asleep under a wooden bridge, oil on canvas"
    ),
    prompts: Annotated[int, typer.Option(help="Also prompts times pictures; 0 for none.")] = 1000,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Score the same pictures with equal random weights of full size in every package."""
    if model not in MEASURED:
        raise typer.BadParameter(f"--model {model}: expected one of {', '.join(MEASURED)}")
    unknown = [name for name in contenders if name not in CONTENDERS]
    if unknown:
        raise typer.BadParameter(
            f"--contender {', '.join(unknown)}: expected {', '.join(CONTENDERS)}"
        )
    if threads:
        torch.set_num_threads(threads)
    place = torch.device(device)
    try:
        paths = existing_files(str(images))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--images {error}") from error
    chosen = [str(path.resolve()) for path in paths[:: max(1, len(paths) // n)][:n]]
    weights = str(seeded_checkpoint(model, workdir).resolve())
    gc.collect()
    rates, of_processor = _rates(place), _processor_rate(place)
    results = run_rounds(
        contenders,
        {
            "model": model,
            "weights": weights,
            "images": chosen,
            "prompt": prompt,
            "batch_size": batch_size,
            "threads": torch.get_num_threads(),
            "device": device,
        },
        rounds=rounds,
        pythons={name: sys.executable if name in OURS else peers_python for name in contenders},
    )
    rates = {dtype: max(rate, rates[dtype]) for dtype, rate in _rates(place).items()}
    matrix = _matrix(weights, model, chosen, prompts, device) if prompts else None
    report: dict[str, Any] = {
        "what": "speed score",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(place),
        "model": model,
        "pictures": len(chosen),
        "rounds": rounds,
        "batch_size": batch_size,
        "flops": MEASURED[model]()._asdict(),
        "matrix_rates": rates,
        "processor_rate": max(of_processor, _processor_rate(place)),
        "agreement": rank_agreement(results),
        "contenders": {name: asdict(result) for name, result in results.items()},
        "prompts_times_pictures": matrix,
    }
    console = Console(width=WIDTH, soft_wrap=True)
    console.print(score_table(report))
    for line in sentences(report):
        console.print(line)
    if out is not None:
        for measured in report["contenders"].values():
            del measured["scores"]
        out.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def train(
    data: Annotated[Path, typer.Option(exists=True, help="Ranked groups with their images.")],
    backbone: Annotated[str, typer.Option(help="Model, by its name in open_clip.")] = "ViT-B-32",
    blocks: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Image and text blocks that train; by default all."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs in a batch.")] = 32,
    views: Annotated[int, typer.Option(min=0, help="Weak views of each image.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure after the first.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way runs.")] = 1,
    ways: Annotated[
        list[str] | None, typer.Option("--way", help=f"Some of: {', '.join(WAYS)}; else all.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Decoding workers of each way.")] = WORKERS,
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 for its default.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Train on the same pairs, pair by pair as the field's scripts do, and as stablepref does."""
    chosen = ways or WAYS
    if unknown := [name for name in chosen if name not in WAYS]:
        raise typer.BadParameter(f"--way {', '.join(unknown)}: expected {', '.join(WAYS)}")
    if threads:
        torch.set_num_threads(threads)
    place = torch.device(device)
    sizes = get_model_config(backbone)
    if sizes is None:
        raise typer.BadParameter(f"--backbone {backbone}: open_clip has no model of this name")
    sizes = {name: sizes[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    job = {
        "data": str(data.resolve()),
        "backbone": sizes,
        "image_blocks": blocks and blocks[0],
        "text_blocks": blocks and blocks[1],
        "pairs": pairs,
        "views": views,
        "steps": steps,
        "workers": workers,
        "threads": torch.get_num_threads(),
        "device": device,
    }
    rates = _rates(place)
    found = run_training(chosen, job, rounds=rounds)
    report = {
        "what": "speed train",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(place),
        "model": backbone,
        "job": {name: value for name, value in job.items() if name != "data"},
        "rounds": rounds,
        # Forward, and twice as much backward where a block trains.
        "flops": training_flops(sizes, blocks and blocks[0]),
        "matrix_rates": {dtype: max(rate, rates[dtype]) for dtype, rate in _rates(place).items()},
        "contenders": found,
    }
    Console(width=WIDTH, soft_wrap=True).print(train_table(report))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="What to serve; `stablepref models` lists names.")] = (
        "shapes"
    ),
    clients: Annotated[
        list[int], typer.Option("--clients", help="Clients at once; may be repeated.")
    ] = [1, 16, 64],  # noqa: B006 (typer takes a copy)
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 10.0,
    per_request: Annotated[int, typer.Option(min=1, help="Images in a request.")] = 4,
    requests: Annotated[
        int, typer.Option(min=0, help="Requests of which 1 % are malformed; 0 sends none.")
    ] = 1000,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Number type of the model.")] = "float32",
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Score over HTTP and in the process, and send requests of which 1 % are malformed."""
    if min(clients) < 1:
        raise typer.BadParameter(f"--clients {min(clients)}: expected 1 or more")
    measured = measure(
        model,
        device=device,
        dtype=dtype,
        clients=clients,
        seconds=seconds,
        per_request=per_request,
        requests=requests,
    )
    report = {
        "what": "speed serve",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(torch.device(device)),
        "model": model,
        "dtype": dtype,
        "seconds": seconds,
        "per_request": per_request,
        "measured": measured,
    }
    console = Console(width=WIDTH, soft_wrap=True)
    console.print(serve_table(report))
    if found := measured["malformed"]:
        console.print(
            f"{requests} requests with 1 % malformed: {found['right']} right, {found['errors']} "
            f"errors, {found['wrong']} wrong; the server's memory after a tenth and at the end: "
            f"{found['memory']}"
        )
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def draw(
    pipeline: Annotated[str, typer.Option(help="What draws; `shapes` is bundled.")] = "shapes",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, one picture of each.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured.")] = 1,
    busy: Annotated[bool, typer.Option("--busy", help="Beside a busy process.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Draw one picture at a time, in batches over prompts, and in batches side by side."""
    from .draw import draw_table  # noqa: PLC0415 (diffusers, an extra)
    from .draw import measure as measure_drawing  # noqa: PLC0415 (diffusers, an extra)

    place = torch.device(device)
    measured = measure_drawing(
        pipeline,
        prompts=prompts,
        steps=steps,
        guidance=guidance,
        device=place,
        rounds=rounds,
        busy=busy,
    )
    report = {
        "what": "speed draw",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(place),
        "pipeline": pipeline,
        "prompts": prompts,
        "steps": steps,
        "rounds": rounds,
        "busy": busy,
        "measured": measured,
    }
    Console(width=WIDTH, soft_wrap=True).print(draw_table(report))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def threads(
    counts: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Numbers of threads.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each number is measured.")] = 1,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Small models with 1 and 2 threads, alone and beside a busy process: two or three minutes."""
    from .threads import measure as measure_threads  # noqa: PLC0415 (diffusers, an extra)
    from .threads import threads_table  # noqa: PLC0415 (diffusers, an extra)

    kind = machine_kind(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_threads(Path(folder), counts or [1, 2], rounds=rounds)
    Console(width=WIDTH, soft_wrap=True).print(threads_table(rows))
    if out is not None:
        report = {"what": "speed threads", "machine": kind, "rounds": rounds, "rows": rows}
        out.write_text(json.dumps(report, indent=1) + "\n")


def _rates(device: torch.device) -> dict[str, float]:
    """Measured rates of matrix products, in operations per second, by number type."""
    return {name: matrix_rate(getattr(torch, name), device) for name in ("float32", "bfloat16")}


def _processor_rate(device: torch.device) -> float:
    """Operations of float32 products in a second of the processor's time, all threads together."""
    return matrix_rate(torch.float32, device, clock=time.process_time)


def _matrix(
    weights: str, model: str, images: list[str], prompts: int, device: str
) -> dict[str, float]:
    scorer = stablepref.load(weights, like=model, device=device)
    return prompts_times_pictures(scorer, images, made_up_prompts(prompts))


if __name__ == "__main__":
    app()
