"""Pictures and ranked groups that are made up: speed does not depend on what they show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stablepref.output.durable import replacing

if TYPE_CHECKING:
    from pathlib import Path


def write_jpegs(folder: Path, count: int, *, side: int) -> list[Path]:
    """JPEG files of smooth noise, which decode about as fast as photographs; existing ones stay.

    Args:
        folder: Created if it is missing.
        count: How many.
        side: Side of a picture in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        paths.append(path)
        if path.exists():
            continue
        cells = max(2, side // 8)
        noise = np.random.default_rng(number).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        with replacing(path) as staging:
            Image.fromarray(noise).resize((side, side)).save(staging, format="JPEG", quality=90)
    return paths


def write_groups(path: Path, images: list[Path], *, size: int) -> Path:
    """Ranked groups of so many images each, without ties, as JSON Lines beside the images.

    Args:
        path: The file.
        images: In a folder beside it; what is left of an incomplete group is not used.
        size: Images of a group.

    Returns:
        The file.
    """
    with replacing(path) as staging, staging.open("w", encoding="utf-8") as file:
        for number in range(len(images) // size):
            members = images[number * size : (number + 1) * size]
            names = [str(one.relative_to(path.parent)) for one in members]
            row = {"prompt": f"picture {number}", "images": names, "ranks": [*range(1, size + 1)]}
            file.write(json.dumps(row) + "\n")
    return path
