"""Record reference scores of a model's official code, in that code's own environment.

    python -m benchmarks.parity.record hps-v2 --images GALLERY --out tests/parity

from the root of the repository. `docs/parity.md` has the environments.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import official_blip, official_clip
from .cases import CASES, TWO_BLOCKS, official_state
from .inputs import PICTURES, PROMPTS, TOKEN_PROMPTS, load_pictures, picture_digest
from .weights import state_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OFFICIAL: dict[str, tuple[Callable[..., torch.Tensor], tuple[str, ...]]] = {
    "clip-vit-l-14": (official_clip.openai_clip, ("clip-anytorch",)),
    "clip-vit-h-14": (official_clip.open_clip_h, ("open_clip_torch",)),
    "hps-v1": (official_clip.hps_v1, ("clip-anytorch",)),
    "hps-v2": (official_clip.hps_v2, ("hpsv2",)),
    "hps-v2.1": (official_clip.hps_v2, ("hpsv2",)),
    "pickscore-v1": (official_clip.pickscore, ("transformers", "tokenizers")),
    "imagereward-v1": (official_blip.imagereward, ("image-reward", "transformers", "timm")),
    "blip-large": (official_blip.blip, ("image-reward", "transformers", "timm")),
    "laion-aesthetic-v1": (official_clip.aesthetic, ("clip-anytorch",)),
    "laion-aesthetic-v2": (official_clip.aesthetic, ("clip-anytorch",)),
}
TOKENS: dict[str, tuple[Callable[..., list[list[int]]], tuple[str, ...]]] = {
    "tokens-bert": (official_blip.tokens, ("image-reward", "transformers")),
    "tokens-openai": (official_clip.openai_tokens, ("clip-anytorch", "ftfy")),
    "tokens-transformers": (official_clip.transformers_tokens, ("transformers", "tokenizers")),
}
COMMON_PACKAGES = ("torch", "torchvision", "pillow", "numpy")
DIGITS = 9  # of a float32 in decimal


def main(arguments: Sequence[str]) -> None:
    """Parse, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=[*OFFICIAL, *TOKENS])
    parser.add_argument("--images", type=Path, help="folder of the HPD v2 gallery's images")
    parser.add_argument("--full", action="store_true", help="all blocks instead of two")
    parser.add_argument("--out", type=Path, default=Path("tests/parity"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.model in TOKENS:
        path = options.out / f"{options.model}.json"
        record = record_tokens(options.model)
    else:
        path = options.out / f"{options.model}-{'full' if options.full else 'two'}.json"
        record = record_scores(options.model, images=options.images, full=options.full)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def record_scores(name: str, *, images: Path, full: bool) -> dict[str, object]:
    """Scores of all pictures under all prompts, with everything that they depend on."""
    reference, packages = OFFICIAL[name]
    blocks = CASES[name].blocks if full else TWO_BLOCKS
    pictures = load_pictures(images)
    with torch.no_grad():
        scores = reference(name, blocks, pictures, PROMPTS)
    return {
        "model": name,
        "blocks": blocks,
        "official": " ".join((reference.__doc__ or "").split()),
        **_provenance(packages),
        "weights_sha256": state_digest(official_state(name, blocks)),
        "prompts": PROMPTS,
        "pictures": [
            {"file": file, "box": box, "sha256": picture_digest(picture)}
            for (file, box), picture in zip(PICTURES, pictures, strict=True)
        ],
        "scores": [[float(f"{s:.{DIGITS}g}") for s in row] for row in scores.tolist()],
    }


def record_tokens(name: str) -> dict[str, object]:
    """Token ids of prompts in which tokenisers differ; BERT's with the made-up vocabulary."""
    reference, packages = TOKENS[name]
    return {
        "official": " ".join((reference.__doc__ or "").split()),
        **_provenance(packages),
        "prompts": TOKEN_PROMPTS,
        "ids": reference(TOKEN_PROMPTS),
    }


def _provenance(packages: Sequence[str]) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in (*packages, *COMMON_PACKAGES)}
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version(), **versions},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
