"""What HPS v3 costs at full size, from a few blocks of full width with random weights.

All 28 layers of the language model do equal work, and so do all 32 blocks of the vision tower: two
of each, timed apart from what comes before and after them, say what all take.
`python -m stablepref.benchmarks.speed.hps_v3` downloads nothing and needs about 4 GB.
"""

from __future__ import annotations

import datetime
import functools
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import psutil  # type: ignore[import-untyped]
import torch
import typer
from accelerate import init_empty_weights
from rich.console import Console
from rich.table import Table
from torch import nn

from stablepref.models.catalog import BY_NAME
from stablepref.models.chat import ChatText
from stablepref.models.hps_v3 import PADDING, REWARD_TOKEN, HPSv3Scorer, RewardHead
from stablepref.models.qwen2_vl import build_body
from stablepref.runtime.inference import inference
from stablepref.runtime.precision import has_bfloat16_units

from ..parity import hps_v3 as made_up
from .contender import peak_bytes
from .machine import machine_kind, matrix_rate, synchronize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROWS: Final = 151_658
"""Tokens of the official vocabulary, the reward token included."""
TEXT_TOKENS: Final = 590
"""Of the official instruction with a prompt of ten words."""
WIDTH: Final = 0.02
"""Half of the range of random weights: small ones, so that nothing overflows."""
VISION: Final = ("patch embedding", "vision block", "merger")
"""What a picture passes once for all of its prompts."""
GIGA: Final = 1e9


def build(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> HPSv3Scorer:
    """A scorer of these sizes with random weights and made-up texts."""
    chat = ChatText(made_up.tokenizer_file(), made_up.CHAT, (REWARD_TOKEN,))
    with init_empty_weights(include_buffers=False):
        scorer = HPSv3Scorer(sizes, chat, made_up.INSTRUCTION + made_up.TAIL)
    generator = torch.Generator().manual_seed(0)
    for module in scorer.modules():
        for name, weight in module.named_parameters(recurse=False):
            values = torch.empty(weight.shape).uniform_(-WIDTH, WIDTH, generator=generator)
            setattr(module, name, nn.Parameter(values, requires_grad=False))
    return scorer.to(device=device, dtype=dtype).eval()


def shortened(sizes: Mapping[str, Any], layers: int, blocks: int) -> dict[str, Any]:
    """The sizes with fewer language layers and vision blocks."""
    vision = {**sizes["vision"], "depth": blocks}
    return {**sizes, "num_hidden_layers": layers, "vision": vision}


def parts(scorer: HPSv3Scorer) -> dict[str, Sequence[nn.Module]]:
    """What is timed, by name; modules of one name do equal work."""
    visual, language = scorer.body.visual, scorer.body.language_model
    return {
        "patch embedding": [visual.patch_embed],
        "vision block": list(visual.blocks),
        "merger": [visual.merger],
        "embedding": [language.embed_tokens],
        "language layer": list(language.layers),
        "final norm and head": [language.norm, scorer.head],
    }


def timed(
    scorer: HPSv3Scorer,
    inputs: Any,  # noqa: ANN401 - of `collate`
    prompts: torch.Tensor,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Seconds of one pass by part, all modules of a name together, "the rest" and "all"."""
    taken: dict[str, float] = defaultdict(float)
    begun: dict[nn.Module, float] = {}
    device = scorer.device

    def before(module: nn.Module, _: object) -> None:
        synchronize(device)
        begun[module] = clock()

    def after(name: str, module: nn.Module, *_: object) -> None:
        synchronize(device)
        taken[name] += clock() - begun[module]

    hooks = []
    for name, modules in parts(scorer).items():
        for module in modules:
            hooks.append(module.register_forward_pre_hook(before))
            hooks.append(module.register_forward_hook(functools.partial(after, name)))
    try:
        with inference(scorer):
            synchronize(device)
            started = clock()
            scorer.match(scorer.encode_inputs(inputs), prompts)
            synchronize(device)
            whole = clock() - started
    finally:
        for hook in hooks:
            hook.remove()
    rest = whole - sum(taken.values())
    return {**taken, "the rest": rest, "all": whole}


def measure(
    full: Mapping[str, Any],
    *,
    layers: int,
    blocks: int,
    rounds: int,
    side: int,
    text_tokens: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time and memory of a few layers and blocks.

    Args:
        full: The sizes of the whole model, see `stablepref.models.qwen2_vl.build_body`.
        layers: Language layers that are built.
        blocks: Vision blocks that are built.
        rounds: How often a batch is scored, after once that is not counted.
        side: Of the pictures, in pixels.
        text_tokens: Tokens after the picture.
        batch: Pictures that are scored at once.
        dtype: Of the weights; the head's are float32.
        device: Where the model runs.
        clock: Seconds so far, of the clock or of the processor.

    Returns:
        The numbers that `estimate` reads, times of whole batches in seconds, memory in bytes.
    """
    sizes = shortened(full, layers, blocks)
    scorer = build(sizes, dtype, device)
    scorer.context = max(scorer.context, text_tokens)
    pictures = [made_up.picture(side, side + number) for number in range(batch)]
    begun = clock()
    patches = [scorer.preprocess.exact(picture) for picture in pictures]
    preparing = clock() - begun
    inputs = scorer.collate(patches)
    inputs = inputs._replace(values=inputs.values.to(device))
    prompts = torch.full((batch, scorer.context), PADDING)
    prompts[:, :text_tokens] = made_up.token_id(REWARD_TOKEN)
    prompts = prompts.to(device)
    forget_peak(device)
    held = memory(device)
    timed(scorer, inputs, prompts, clock)
    working = max(0, peak(device) - held)
    passes = [timed(scorer, inputs, prompts, clock) for _ in range(rounds)]
    kept = int(inputs.grid.prod(-1).sum()) // scorer.body.visual.spatial_merge_size**2
    return {
        "layers": layers,
        "blocks": blocks,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "image_tokens": kept / batch,
        "tokens": kept / batch + text_tokens + len(scorer._before),
        "preparing": preparing,
        "passes": passes,
        "working_bytes": working,
    }


def estimate(full: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds for a picture, by part and together, of the whole model.

    Args:
        full: The sizes of the whole model.
        measured: What `measure` gave.

    Returns:
        `once`, what a part takes each time, `times`, how often the whole model does it, and
        `first` and `further`: seconds of a picture with its first prompt, and of another prompt.
    """
    batch, passes = measured["batch"], measured["passes"]
    built = {"vision block": measured["blocks"], "language layer": measured["layers"]}
    times = {
        "vision block": full["vision"]["depth"],
        "language layer": full["num_hidden_layers"],
    }
    names = [name for name in passes[0] if name != "all"]
    once = {
        name: statistics.median(one[name] for one in passes) / batch / built.get(name, 1)
        for name in names
    }
    share = {name: once[name] * times.get(name, 1) for name in names}
    prepared = measured["preparing"] / batch
    further = sum(value for name, value in share.items() if name not in VISION)
    return {
        "once": once,
        "times": {name: times.get(name, 1) for name in names},
        "first": prepared + sum(share.values()),
        "further": further,
    }


def weights(full: Mapping[str, Any], *, rows: int = ROWS) -> dict[str, int]:
    """Numbers of weights of the whole model, by part; nothing is allocated."""
    with torch.device("meta"):
        body, head = build_body(full, rows=rows), RewardHead(full["hidden_size"])
    count = {"vision": body.visual, "language": body.language_model, "head": head}
    return {name: sum(w.numel() for w in part.parameters()) for name, part in count.items()}


def bytes_of(numbers: Mapping[str, int], dtype: torch.dtype) -> int:
    """Bytes of weights, whose head is float32 whatever the rest is."""
    body = numbers["vision"] + numbers["language"]
    return body * dtype.itemsize + numbers["head"] * torch.float32.itemsize


def forget_peak(device: torch.device) -> None:
    """Let the peak of memory begin again, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory(device: torch.device) -> int:
    """Bytes in use."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    resident: int = psutil.Process().memory_info().rss
    return resident


def peak(device: torch.device) -> int:
    """Most bytes in use since `forget_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()


def table(report: Mapping[str, Any]) -> Table:
    """Times by part."""
    measured, found = report["measured"], report["estimate"]
    table = Table(
        "part",
        "once, s",
        "times",
        "together, s",
        title=f"{measured['dtype']}, {measured['tokens']:.0f} tokens of which "
        f"{measured['image_tokens']:.0f} of the picture",
    )
    for name, seconds in found["once"].items():
        many = found["times"][name]
        table.add_row(name, f"{seconds:.3f}", str(many), f"{seconds * many:.2f}")
    return table


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Sentences of what a picture takes, in time and memory."""
    measured, found = report["measured"], report["estimate"]
    whole = [one["all"] for one in measured["passes"]]
    yield (
        f"A pass of {measured['layers']} layers and {measured['blocks']} blocks took "
        f"{statistics.median(whole):.2f} s ({min(whole):.2f} to {max(whole):.2f} in {len(whole)} "
        f"rounds, batches of {measured['batch']})."
    )
    yield (
        f"The whole model: {found['first']:.1f} s for a picture, {found['further']:.1f} s for each "
        "further prompt of it."
    )
    for name, size in report["weights_bytes"].items():
        yield f"Weights in {name}: {size / GIGA:.1f} GB."
    yield (
        f"Beside the weights a pass takes {measured['working_bytes'] / GIGA:.2f} GB, whatever the "
        "number of layers."
    )
    rates = report["matrix_rates"]
    yield "Products of square matrices: " + ", ".join(
        f"{rate / GIGA:.3g} GFLOP/s in {name}" for name, rate in rates.items()
    )
    if not report["bfloat16_units"]:
        slower = rates["float32"] / rates["bfloat16"]
        yield (
            f"This CPU has no bfloat16 units: products take {slower:.1f} times as long as in "
            "float32, and `dtype='auto'` is float32."
        )


def hps_v3(
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Number type of the weights.")
    ] = "float32",
    layers: Annotated[int, typer.Option(min=1, help="Language layers to build.")] = 2,
    blocks: Annotated[int, typer.Option(min=1, help="Vision blocks to build.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Passes that are timed.")] = 3,
    side: Annotated[int, typer.Option(min=1, help="Of the picture, in pixels.")] = 512,
    text_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of instruction and prompt.")
    ] = TEXT_TOKENS,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 for its default.")] = 0,
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time",
            help="Count seconds of the processor, of all threads, which other programs do not "
            "change; for a busy machine, with one thread.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Time and memory of HPS v3 for a picture, from a few layers and blocks: a minute or two."""
    if threads:
        torch.set_num_threads(threads)
    report = report_of(
        BY_NAME["hps-v3"].sizes,
        layers=layers,
        blocks=blocks,
        rounds=rounds,
        side=side,
        text_tokens=text_tokens,
        batch=batch,
        dtype=getattr(torch, dtype),
        device=torch.device(device),
        clock=time.process_time if processor_time else time.perf_counter,
    )
    report["clock"] = "processor" if processor_time else "wall"
    console = Console(width=100, soft_wrap=True)
    console.print(table(report))
    for line in lines(report):
        console.print(line)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


def report_of(full: Mapping[str, Any], **how: Any) -> dict[str, Any]:  # noqa: ANN401
    """What is measured and estimated, with date and kind of the machine.

    Args:
        full: The sizes of the whole model.
        how: As `measure` takes it.
    """
    device = how["device"]
    rates = {name: matrix_rate(getattr(torch, name), device) for name in ("float32", "bfloat16")}
    numbers = weights(full)
    measured = measure(full, **how)
    return {
        "what": "speed hps-v3",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine_kind(device),
        "bfloat16_units": device.type != "cpu" or has_bfloat16_units(),
        "matrix_rates": rates,
        "weights": numbers,
        "weights_bytes": {
            name: bytes_of(numbers, getattr(torch, name)) for name in ("float32", "bfloat16")
        },
        "measured": measured,
        "estimate": estimate(full, measured),
    }


if __name__ == "__main__":
    typer.run(hps_v3)
