"""Official files of the models since 2024 at a tiny width, with seeded weights.

Pictures are drawn here and texts made up, so that these records need no data and few seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from stablepref.models.recent import RECENT

from . import layouts
from .inputs import PROMPTS, made_up_vocabulary
from .weights import seeded_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.entry import Entry

BLIP: Final = {"vision_width": 128, "vision_depth": 2, "text_width": 64, "text_depth": 2}
CLIP: Final[dict[str, Any]] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 224,
        "layers": 2,
        "width": 160,
        "head_width": 80,
        "patch_size": 56,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
    "quick_gelu": False,
}
SIGLIP: Final = {
    "image_size": 70,
    "patch_size": 14,
    "width": 72,
    "depth": 2,
    "heads": 4,
    "mlp_width": 269,
}
"""72 x 3.7362 is 269.0: as in SO400M, the MLP's width is no multiple of the tower's."""

CONDITION: Final = "colours, shapes, edges, corners and the words of a picture."
SHAPES: Final = ((227, 224), (300, 180), (97, 260), (64, 50), (500, 333))
"""Widths and heights of the pictures."""
NAMES: Final = ("cyclereward-combo", "mps-v1", "mps-v1-batch", "aesthetic-v2.5")


def pictures() -> list[Image.Image]:
    """Smooth colours with hard edges, in several shapes; equal on every machine."""
    drawn = []
    for number, (width, height) in enumerate(SHAPES):
        y, x = np.mgrid[0:height, 0:width]
        planes = [
            (x * (3 + number) + y * (5 + plane) + (x // 16 + y // 24) % 2 * 70 * plane) % 256
            for plane in range(3)
        ]
        drawn.append(Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)))
    return drawn


def prompts() -> list[str]:
    """Those of the other records, but for the long one."""
    return list(PROMPTS[:3])


def tiny_entry(name: str) -> Entry:
    """The zoo's entry with the tiny sizes and the made-up condition."""
    (entry,) = (entry for entry in RECENT if entry.name == name)
    if entry.kind == "cyclereward":
        return replace(entry, sizes=dict(BLIP))
    if entry.kind == "mps":
        own = {key: entry.sizes[key] for key in ("threshold", "scope")}
        return replace(entry, sizes={**CLIP, **own, "condition_sha256": None})
    return replace(entry, sizes=dict(SIGLIP))


def tiny_state(name: str) -> dict[str, Tensor]:
    """Weights of a model's official file."""
    family = "mps" if name.startswith("mps") else name
    return seeded_state(_layout(name), seed=f"tiny/{family}")


def tower_state() -> dict[str, Tensor]:
    """Weights of SigLIP's official file, on whose features aesthetic v2.5 works."""
    return seeded_state(_siglip(**SIGLIP), seed="tiny/siglip")


def write_tiny_files(name: str, folder: Path) -> list[Path]:
    """Write a model's official files, in the order of the zoo entry's."""
    entry, state = tiny_entry(name), tiny_state(name)
    paths = [folder / file.filename for file in entry.files]
    if paths[0].suffix == ".safetensors":
        save_file(state, paths[0])
    elif entry.kind == "aesthetic-siglip":
        torch.save({key: value.bfloat16() for key, value in state.items()}, paths[0])
    else:
        torch.save(state, paths[0])
    if entry.kind == "cyclereward":
        paths[1].write_text("\n".join(made_up_vocabulary()) + "\n", encoding="utf-8")
    elif entry.kind == "mps":
        paths[1].write_text(f"def infer(condition=None):\n    condition = {CONDITION!r}\n")
    else:
        save_file(tower_state(), paths[1])
    return paths


def _layout(name: str) -> layouts.Shapes:
    if name == "aesthetic-v2.5":
        width = SIGLIP["width"]
        sizes = ((0, 1024, width), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (8, 1, 16))
        return _head("scoring_head", sizes)
    if name.startswith("mps"):
        return _mps()
    sizes = ((0, 1024, BLIP["text_width"]), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (8, 1, 16))
    return layouts.blip(
        prefix="blip.",
        vision_blocks=BLIP["vision_depth"],
        text_blocks=BLIP["text_depth"],
        vision=BLIP["vision_width"],
        text=BLIP["text_width"],
    ) | _head("mlp.layers", sizes)


def _head(prefix: str, sizes: tuple[tuple[int, int, int], ...]) -> layouts.Shapes:
    shapes: layouts.Shapes = {f"{prefix}.{i}.weight": (out, width) for i, out, width in sizes}
    return shapes | {f"{prefix}.{i}.bias": (out,) for i, out, _ in sizes}


def _mps() -> layouts.Shapes:
    vision, text, width = CLIP["vision_cfg"]["width"], CLIP["text_cfg"]["width"], CLIP["embed_dim"]
    clip = layouts.transformers_clip(
        vision_width=vision, text_width=text, embed_dim=width, vision_blocks=2, text_blocks=2
    )
    patch = CLIP["vision_cfg"]["patch_size"]
    clip["vision_model.embeddings.patch_embedding.weight"] = (vision, 3, patch, patch)
    clip["vision_model.embeddings.position_embedding.weight"] = ((224 // patch) ** 2 + 1, vision)
    cross: layouts.Shapes = {}
    for layer in range(4):
        attend, reflect = (f"cross_model.layers.{layer}.{part}.fn" for part in (0, 1))
        cross |= {
            f"{attend}.norm.weight": (width,),
            f"{attend}.to_q.weight": (width, width),
            f"{attend}.to_kv.weight": (128, width),
            f"{attend}.to_out.weight": (width, width),
            f"{attend}.ff.0.weight": (8 * width, width),
            f"{attend}.ff.2.weight": (width, 4 * width),
            f"{reflect}.norm.weight": (width,),
            f"{reflect}.fused_attn_ff_proj.weight": (9 * width + 128, width),
            f"{reflect}.attn_out.weight": (width, width),
            f"{reflect}.ff_out.1.weight": (width, 4 * width),
        }
    return {f"mps.model.{k}": v for k, v in clip.items()} | {
        f"mps.{k}": v for k, v in cross.items()
    }


def _siglip(
    *, image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_width: int
) -> layouts.Shapes:
    del heads
    linears: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding": (width, 3, patch_size, patch_size),
        "head.attention.out_proj": (width, width),
        "head.mlp.fc1": (mlp_width, width),
        "head.mlp.fc2": (width, mlp_width),
    }
    norms = ["post_layernorm", "head.layernorm"]
    for layer in range(depth):
        name = f"encoder.layers.{layer}"
        linears |= {f"{name}.self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
        linears |= {f"{name}.mlp.fc1": (mlp_width, width), f"{name}.mlp.fc2": (width, mlp_width)}
        norms += [f"{name}.layer_norm1", f"{name}.layer_norm2"]
    shapes: layouts.Shapes = {
        "embeddings.position_embedding.weight": ((image_size // patch_size) ** 2, width),
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
    }
    shapes |= {f"{key}.weight": shape for key, shape in linears.items()}
    shapes |= {f"{key}.bias": shape[:1] for key, shape in linears.items()}
    shapes |= {f"{key}.{parameter}": (width,) for key in norms for parameter in ("weight", "bias")}
    return {f"vision_model.{key}": shape for key, shape in shapes.items()}
