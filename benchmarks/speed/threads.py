"""Small models with one and with several threads, alone and beside a busy process."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from rich.table import Table

import stablepref
from stablepref.data.prompts import ListedPrompt
from stablepref.integrations.best_of_n import best_of_n
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.lora import remove_lora
from stablepref.integrations.finetune.run import finetune
from stablepref.runtime.threads import use_threads

from ..bench.prompt_sets import PromptSet
from ..bench.run import bench
from .busy import busy_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROMPT: Final = "a red circle left of a blue star"
ENCODERS: Final = ((256, 8), (384, 12), (512, 12), (640, 12), (768, 12))
"""Width and blocks of image encoders with patches of 32 pixels; the last is that of ViT-B/32."""
PICTURES: Final = 16
"""Pictures that an encoder gets at once, as scoring on a CPU does."""


def tasks(folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name; the size of each task is a few seconds on two cores.

    Args:
        folder: For what commands write.
    """
    scorer = stablepref.load("shapes", device="cpu")
    pipe: Any = load_pipeline("shapes", dtype=None, device=torch.device("cpu"))
    config = FinetuneConfig(
        steps=1, batch_size=4, sampling_steps=5, samples=1, pictures_per_sample=2, sample_every=1
    )
    prompts = PromptSet("threads", tuple(ListedPrompt(str(i), PROMPT) for i in range(2)))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 96, 96, 3), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray(one.numpy()) for one in noise]

    def new() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    def train() -> None:
        finetune(pipe, [PROMPT], scorer, config, out=new(), progress=False)
        remove_lora(pipe)

    def draw() -> None:
        for seed in range(2):
            pipe(PROMPT, num_inference_steps=10, generator=torch.Generator().manual_seed(seed))

    pipe.set_progress_bar_config(disable=True)
    return {
        "demo: 4 candidates of 25 steps": lambda: best_of_n(
            pipe, PROMPT, scorer, 4, num_inference_steps=25, out=new(), progress=False
        ),
        "select: 4 candidates of 10 steps": lambda: best_of_n(
            pipe, PROMPT, scorer, 4, num_inference_steps=10, progress=False
        ),
        "the pipeline: 2 pictures of 10 steps, one by one": draw,
        "bench: 2 prompts, 2 images of 10 steps": lambda: bench(
            prompts,
            ["shapes"],
            ["shapes"],
            out=new(),
            images=2,
            arguments={"num_inference_steps": 10},
            device="cpu",
            progress=False,
        ),
        "finetune: 1 step of 4 pictures": train,
        "score: 64 pictures by shapes": lambda: scorer.score(pictures, PROMPT, progress=False),
        **dict(_encoders()),
    }


def measure(
    folder: Path, threads: Sequence[int], *, rounds: int, busy: Sequence[bool] = (False, True)
) -> list[dict[str, object]]:
    """Seconds of each task with each number of threads, alone and beside a busy process.

    The numbers of threads take turns within a round, so that a change of the machine's load meets
    all of them.

    Args:
        folder: For what commands write.
        threads: Numbers of threads.
        rounds: How often each is measured.
        busy: Whether beside a busy process, each in turn.

    Returns:
        For each task and state a row: "task", "busy", and "seconds", the measured times by number
        of threads.
    """
    rows: list[dict[str, object]] = []
    everything = tasks(folder)
    for task in everything.values():
        task()  # libraries choose their kernels on the first call
    for beside in busy:
        with busy_process(wanted=beside):
            for name, task in everything.items():
                seconds: dict[str, list[float]] = {str(count): [] for count in threads}
                for _ in range(rounds):
                    for count in threads:
                        use_threads(count)
                        begun = time.perf_counter()
                        task()
                        seconds[str(count)].append(time.perf_counter() - begun)
                rows.append({"task": name, "busy": beside, "seconds": seconds})
    return rows


def threads_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The median of each task's seconds, and the range where it was measured several times."""
    table = Table(title="seconds by number of threads")
    table.add_column("task")
    table.add_column("beside")
    for count in rows[0]["seconds"]:
        table.add_column(f"{count} thread{'s' if count != '1' else ''}", justify="right")
    for row in rows:
        cells = []
        for times in row["seconds"].values():
            text = f"{statistics.median(times):.2f}"
            if len(times) > 1:
                text += f" ({min(times):.2f} to {max(times):.2f})"
            cells.append(text)
        table.add_row(row["task"], "a busy process" if row["busy"] else "nothing of ours", *cells)
    return table


def _encoders() -> Iterator[tuple[str, Callable[[], object]]]:
    """One forward pass of image encoders of several sizes, to see from which size threads help."""
    pixels = torch.rand(PICTURES, 3, 224, 224)
    for width, blocks in ENCODERS:
        encoder = VisionTransformer(224, 32, width, blocks, width // 64, 4.0, output_dim=512)
        encoder.requires_grad_(requires_grad=False).eval()
        millions = sum(weight.numel() for weight in encoder.parameters()) / 1e6
        name = f"encoder of {millions:.0f} M weights: {PICTURES} pictures"
        yield name, lambda encoder=encoder: encoder(pixels)  # type: ignore[misc] # bound here
