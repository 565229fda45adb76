"""Tiny models, made once for all tests of VQAScore."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_vlm
from PIL import Image

from stablepref.models.vqa.build import load_vqa
from stablepref.models.vqa.forms import form_of
from stablepref.models.vqa.scorer import VQAScorer

SIZES = ((56, 84), (60, 90), (100, 40), (130, 120))
"""Height and width of the pictures: one that needs no resizing by Qwen2.5-VL, wide, tall, large."""
MAKERS: dict[str, Callable[[Path], Path]] = {
    "qwen2.5": tiny_vlm.save_qwen,
    "qwen3": lambda folder: tiny_vlm.save_qwen(folder, third=True),
    "idefics3": tiny_vlm.save_idefics,
    "llava": tiny_vlm.save_llava,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers", minversion="5.0")
    root = tmp_path_factory.mktemp("vlm")
    return {name: make(root / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="session")
def loaded(folders: dict[str, Path]) -> Callable[..., VQAScorer]:
    """A model in a form; equal models are loaded once."""
    known: dict[Any, VQAScorer] = {}

    def load(kind: str, form: str = "clean", question: str | None = None) -> VQAScorer:
        key = (kind, form, question)
        if key not in known:
            chosen = form_of(form, question)
            known[key] = load_vqa(str(folders[kind]), chosen, name=f"vqa:{kind}").float()
        return known[key]

    return load


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
