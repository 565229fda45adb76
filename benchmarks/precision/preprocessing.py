"""Compare the two forms of every preprocessing protocol on real pictures, and time them.

Run ``python -m stablepref.benchmarks.precision.preprocessing --images FOLDER``. Each picture is
taken as it is and, since galleries of generated pictures are mostly square, as a wide and as a tall
crop. Decoding is not timed. Times are processor time of a single thread, which equals the wall
clock on an idle core and, unlike it, changes little when other programs share the machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stablepref.images.paths import existing_files
from stablepref.preprocess.preprocess import Preprocess
from stablepref.preprocess.protocols import PROTOCOLS

_ROUNDS = 5
_TIMED = 64  # pictures per timing
_BATCH = 16


def load_shapes(folder: Path, limit: int | None) -> Iterator[Image.Image]:
    """Every picture of a folder in RGB: whole, and its middle as a wide and as a tall crop.

    Args:
        folder: Folder with image files.
        limit: Number of files at most, spread evenly; None for all.

    Raises:
        ValueError: There are no image files.
    """
    paths = existing_files(str(folder))
    step = max(1, -(-len(paths) // limit)) if limit else 1
    for path in paths[::step]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = image.size
        yield image
        yield image.crop((0, round(0.3 * height), width, round(0.7 * height)))
        yield image.crop((round(0.35 * width), 0, round(0.65 * width), height))


def as_pixels(image: Image.Image) -> Tensor:
    """The picture as a float tensor ``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def differences(preprocess: Preprocess, images: Sequence[Image.Image]) -> tuple[float, float]:
    """Mean and largest distance of the tensor form from the exact one, in levels of 255."""
    total, worst = 0.0, 0.0
    for image in images:
        gap = preprocess.exact(image) - preprocess(as_pixels(image)[None])[0]
        levels = (gap * preprocess.std).abs() * 255
        total += levels.mean().item()
        worst = max(worst, levels.max().item())
    return total / len(images), worst


def rate(prepare: Callable[[], object], count: int) -> tuple[float, float]:
    """Median pictures per processor second over several rounds, and half their range."""
    prepare()
    rates = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        prepare()
        rates.append(count / (time.process_time() - start))
    return statistics.median(rates), (max(rates) - min(rates)) / 2


def speeds(preprocess: Preprocess, images: Sequence[Image.Image]) -> list[tuple[float, float]]:
    """Rates of the exact form, then of the tensor form: one by one, batched, with gradient."""
    pixels = [as_pixels(image) for image in images]
    batches = [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]

    def backward() -> None:
        for batch in batches:
            leaves = [one.clone().requires_grad_() for one in batch]
            preprocess(leaves).sum().backward()

    ways: list[Callable[[], object]] = [
        lambda: [preprocess.exact(image) for image in images],
        lambda: [preprocess(one[None]) for one in pixels],
        lambda: [preprocess(batch) for batch in batches],
        backward,
    ]
    return [rate(way, len(images)) for way in ways]


def main() -> None:
    """Print the table of differences and the table of speeds as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--limit", type=int, help="number of files at most; all by default")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        images = list(load_shapes(arguments.images, arguments.limit))
    except (OSError, ValueError) as error:
        parser.error(f"--images {error}")
    whole = images[::3][:_TIMED]
    print(f"{len(images) // 3} pictures in three shapes, size {arguments.size}, one thread\n")
    print("| protocol | mean difference /255 | worst /255 |\n| --- | --- | --- |")
    preprocesses = [Preprocess(name, arguments.size) for name in PROTOCOLS]
    for preprocess in preprocesses:
        mean, worst = differences(preprocess, images)
        print(f"| `{preprocess.protocol}` | {mean:.5f} | {worst:.4f} |", flush=True)
    print(f"\nPictures per processor second, {len(whole)} whole ones, {_ROUNDS} rounds:")
    print(f"\n| protocol | exact | tensor, one by one | in batches of {_BATCH} | with gradient |")
    print("| --- | --- | --- | --- | --- |")
    for preprocess in preprocesses:
        cells = (f"{median:.0f} ± {half:.0f}" for median, half in speeds(preprocess, whole))
        print(f"| `{preprocess.protocol}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
