"""One way of training, measured in a process of its own.

    python -P -m stablepref.benchmarks.speed.train JOB.json

"plain loop" does what HPS v2's and ImageReward's training scripts do: every pair decodes its two
images, makes their views one by one on the CPU, and encodes both and the text again. The other ways
are the trainer's own parts, with the same loss.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from stablepref.data.read import read_groups
from stablepref.losses import batch_objective
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.preprocess.protocols import CLIP_MEAN, CLIP_STD
from stablepref.training.freezing import freeze
from stablepref.training.loader import ShareReader
from stablepref.training.optimizer import build_optimizer
from stablepref.training.pairs import PairBatches
from stablepref.training.step import ViewScores, backward

from .contender import peak_bytes
from .machine import synchronize

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from stablepref.data.groups import RankedGroup
    from stablepref.recipes import Batching

SIDE = 224
AREA = (0.85, 1.0)
Job = dict[str, Any]


class PlainPairs(Dataset[tuple["Tensor", str]]):
    """Item i: both images of a pair with their views `(2, 1 + k, 3, S, S)`, and the prompt."""

    def __init__(self, groups: list[RankedGroup], batches: PairBatches, views: int) -> None:
        self.groups = groups
        self.batches = batches
        normalised = [
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CLIP_MEAN, CLIP_STD),
        ]
        bicubic = v2.InterpolationMode.BICUBIC
        self.whole = v2.Compose([v2.Resize(SIDE, bicubic), v2.CenterCrop(SIDE), *normalised])
        crop = v2.RandomResizedCrop(SIDE, AREA, interpolation=bicubic)
        self.weak = v2.Compose([crop, v2.RandomHorizontalFlip(), *normalised])
        self.views = views

    def __len__(self) -> int:
        """More than any training takes."""
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """One pair, decoded and augmented anew."""
        step, place = divmod(index, self.batches.batch_size)
        batch = self.batches[step]
        sides = []
        for row in (int(batch.better[place]), int(batch.worse[place])):
            group, image = batch.images[row]
            picture = Image.open(str(self.groups[group].images[image])).convert("RGB")
            views = [self.weak(picture) for _ in range(self.views)]
            sides.append(torch.stack([self.whole(picture), *views]))
        return torch.stack(sides), self.groups[group].prompt


def plain_steps(
    scorer: CLIPScorer, groups: list[RankedGroup], batches: PairBatches, job: Job, *, half: bool
) -> Generator[Callable[[], object]]:
    """Of the plain loop: a function for each step, which adds its gradient to the weights."""
    pairs = PlainPairs(groups, batches, job["views"])
    loader = DataLoader(pairs, batches.batch_size, num_workers=job["workers"])
    device, count = scorer.device, batches.batch_size
    rows = torch.arange(2 * count, device=device)
    for inputs, prompts in loader:

        def step(inputs: Tensor = inputs, prompts: list[str] = prompts) -> None:
            with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                images = scorer.encode_inputs(inputs.to(device).transpose(0, 1).flatten(0, 2))
                text = scorer.encode_prompts(prompts).repeat(2, 1)
            text = text.repeat_interleave(1 + job["views"], dim=0)
            scores = scorer.match(images, text).view(2 * count, -1)
            label = torch.ones(count, device=device)
            found = batch_objective(scores, rows[:count], rows[count:], label, weighting="margin")
            found.loss.backward()

        yield step


def our_steps(
    scorer: CLIPScorer, groups: list[RankedGroup], batches: PairBatches, job: Job, *, half: bool
) -> Generator[Callable[[], object]]:
    """Of the trainer's own parts: a function for each step."""
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=job["device"] == "cpu")
    module = accelerator.prepare(ViewScores(scorer))
    reader = ShareReader(groups, process=0, processes=1, workers=job["workers"])
    numbered = ((step, batches[step]) for step in range(1 << 30))
    with closing(reader.read(numbered, views=job["views"], area=AREA, hflip=True)) as shares:
        for _, share in shares:
            yield partial(
                backward, accelerator, module, share, partial(batch_objective, weighting="margin")
            )


def measure(job: Job) -> dict[str, Any]:
    """Seconds of each step after the first, and the process's largest memory."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    name, half = job["contender"].removesuffix(" bf16"), job["contender"].endswith(" bf16")
    device = torch.device(job["device"])
    groups = list(read_groups(job["data"]))
    batching: Batching = "groups" if name == "groups" else "pairs"
    batches = PairBatches(groups, batch_size=job["pairs"], batching=batching)
    scorer = CLIPScorer(
        job["backbone"],
        preprocess=Preprocess("clip", SIDE),
        name="speed",
        preference_scale=1.0,
    ).to(device)
    freeze(scorer, image_blocks=job["image_blocks"], text_blocks=job["text_blocks"])
    optimizer = build_optimizer(
        scorer, learning_rate=1e-6, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6
    )
    make = plain_steps if name == "plain loop" else our_steps
    seconds = []
    with closing(make(scorer, groups, batches, job, half=half)) as steps:
        begun = time.perf_counter()
        for step in steps:
            step()
            optimizer.step()
            optimizer.zero_grad()
            synchronize(device)
            now = time.perf_counter()
            seconds.append(now - begun)
            begun = now
            if len(seconds) > job["steps"]:
                break
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    encoded = [len(batches[step].images) for step in range(1, len(seconds))]
    return {
        "seconds": seconds[1:],
        "images": [2 * job["pairs"]] * len(encoded) if name == "plain loop" else encoded,
        "peak_bytes": peak_bytes(),
        "peak_gpu_bytes": gpu,
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(given["out"]).write_text(json.dumps(measure(given)))
