"""What all tests of streaming score: twelve pictures of twelve sizes, by a tiny CLIP."""

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.models.clip import CLIPScorer


@pytest.fixture(scope="module")
def scorer() -> CLIPScorer:
    return tiny_clip()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (60 + i, 90 - i, 3), dtype=np.uint8))
        for i in range(12)
    ]


@pytest.fixture
def files(pictures: list[Image.Image], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:02}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths
