"""Record reference scores of the models since 2024 from their official code, at a tiny width.

    python -m benchmarks.parity.official_tiny cyclereward-combo --out tests/parity

from the root of the repository. `docs/parity.md` has the environments.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from . import tiny
from .inputs import picture_digest
from .official_blip import MED_CONFIG
from .official_clip import transformers_tokenizer
from .weights import state_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

COMMON = ("torch", "torchvision", "pillow", "numpy", "transformers")


def cyclereward(name: str) -> Tensor:
    """`cyclereward.cyclereward(...)` and its `score`, image by image."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        weights, vocabulary = tiny.write_tiny_files(name, Path(folder))
        bert = Path("bert-base-uncased")
        bert.mkdir()
        vocabulary.rename(bert / vocabulary.name)
        (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        sizes = {
            "hidden_size": tiny.BLIP["text_width"],
            "intermediate_size": 4 * tiny.BLIP["text_width"],
            "num_attention_heads": tiny.BLIP["text_width"] // 64,
            "num_hidden_layers": tiny.BLIP["text_depth"],
        }
        Path("med_config.json").write_text(json.dumps({**MED_CONFIG, **sizes}))
        module: Any = importlib.import_module("cyclereward.model")
        pretrain: Any = importlib.import_module("cyclereward.blip.blip_pretrain")
        vision = importlib.import_module("cyclereward.blip.vit")

        def create_vit(_vit: str, image_size: int, *_: object) -> tuple[torch.nn.Module, int]:
            width = tiny.BLIP["vision_width"]
            tower = vision.VisionTransformer(
                img_size=image_size,
                patch_size=16,
                embed_dim=width,
                depth=tiny.BLIP["vision_depth"],
                num_heads=width // 64,
            )
            return tower, width

        pretrain.create_vit = create_vit
        module.cyclereward_args |= {"mlp_dim": tiny.BLIP["text_width"], "blip_path": ""}
        kind = weights.stem
        model, preprocess = module.cyclereward("cpu", kind, cache_dir=".")
        _check_loaded(model, tiny.tiny_state(name))
        inputs = [preprocess(picture)[None] for picture in tiny.pictures()]
        return torch.tensor(
            [[model.score(one, prompt).item() for prompt in tiny.prompts()] for one in inputs]
        )


def mps(name: str) -> Tensor:
    """MPS's modules as imscore has them, as its evaluation scripts or its forward call them."""
    transformers: Any = importlib.import_module("transformers")
    package: Any = importlib.import_module("imscore.mps.model")
    vision, text = tiny.CLIP["vision_cfg"], tiny.CLIP["text_cfg"]
    config = transformers.CLIPConfig(
        projection_dim=tiny.CLIP["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": "gelu",
            "projection_dim": tiny.CLIP["embed_dim"],
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "hidden_act": "gelu",
            "eos_token_id": 2,  # as in the published file: the end token is the largest id
            "projection_dim": tiny.CLIP["embed_dim"],
        },
    )
    package.XCLIPModel.from_pretrained = lambda _: package.XCLIPModel(config)
    cross = package.CrossModel
    width = tiny.CLIP["embed_dim"]
    package.CrossModel = lambda **_: cross(dim=width, layer_num=4, heads=width // 64)
    model = package.CLIPModel()
    state = {key.removeprefix("mps."): value for key, value in tiny.tiny_state(name).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("inv_freq" in k or "norm.bias" in k or "position_ids" in k for k in missing)
    model.eval()
    setattr(torch.Tensor, "half", lambda tensor: tensor)  # noqa: B010 - on a CPU, in float32
    tokenizer = transformers_tokenizer(transformers)
    settings: Any = {"padding": "max_length", "truncation": True, "max_length": 77}

    def tokens(texts: Sequence[str]) -> Tensor:
        found: Tensor = tokenizer(list(texts), return_tensors="pt", **settings).input_ids
        return found

    processor: Any = transformers.CLIPImageProcessor()
    pixels = [
        processor(picture, return_tensors="pt")["pixel_values"] for picture in tiny.pictures()
    ]
    texts = tiny.prompts()
    condition = tokens([tiny.CONDITION])

    def cosines(ends: Tensor, images: Tensor) -> Tensor:
        pairs = torch.nn.functional.normalize(ends) * torch.nn.functional.normalize(images)
        return model.logit_scale.exp() * pairs.sum(-1)

    if name == "mps-v1-batch":  # every image with all the prompts in one batch
        count = len(texts)
        conditions = condition.repeat(count, 1)
        found = [model(tokens(texts), one.repeat(count, 1, 1, 1), conditions) for one in pixels]
        return torch.stack([cosines(*pair) for pair in found])
    scores = torch.empty(len(pixels), len(texts))
    for column, prompt in enumerate(texts):  # what infer_one_sample of the scripts computes
        words, end = model.model.get_text_features(tokens([prompt]))
        of_condition, _ = model.model.get_text_features(condition)
        likeness = torch.einsum("bid,bjd->bji", words, of_condition).max(dim=1, keepdim=True)[0]
        mask = torch.where(likeness / likeness.max() > 0.3, 0.0, float("-inf"))
        for row, one in enumerate(pixels):
            image = model.model.get_image_features(one)
            found = model.cross_model(image, words, mask.repeat(1, image.shape[1], 1))[:, 0]
            scores[row, column] = cosines(end, found).item()
    return scores


def aesthetic(name: str) -> Tensor:
    """`AestheticPredictorV2_5Model` with transformers' SigLIP, and its Pillow image processor."""
    module: Any = importlib.import_module("aesthetic_predictor_v2_5.siglip_v2_5")
    transformers: Any = importlib.import_module("transformers")
    sizes = tiny.SIGLIP
    config = transformers.SiglipVisionConfig(
        hidden_size=sizes["width"],
        intermediate_size=sizes["mlp_width"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"],
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
    )
    model = module.AestheticPredictorV2_5Model(config)
    head = {key: value.bfloat16().float() for key, value in tiny.tiny_state(name).items()}
    missing, unexpected = model.load_state_dict(tiny.tower_state(), strict=False)
    assert not unexpected
    assert all(key.startswith("layers.") or "position_ids" in key for key in missing)
    model.layers.load_state_dict(head)
    model.eval()
    side = {"height": sizes["image_size"], "width": sizes["image_size"]}
    processor = transformers.SiglipImageProcessor(
        size=side, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    scores = [
        model(processor(picture, return_tensors="pt")["pixel_values"]).logits.item()
        for picture in tiny.pictures()
    ]
    return torch.tensor(scores)[:, None].expand(-1, len(tiny.prompts()))


OFFICIAL: dict[str, tuple[Callable[[str], Tensor], tuple[str, ...]]] = {
    "cyclereward-combo": (cyclereward, ("cyclereward", "timm")),
    "mps-v1": (mps, ("imscore",)),
    "mps-v1-batch": (mps, ("imscore",)),
    "aesthetic-v2.5": (aesthetic, ("aesthetic-predictor-v2-5",)),
}


def main(arguments: Sequence[str]) -> None:
    """Parse, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=OFFICIAL)
    parser.add_argument("--out", type=Path, default=Path("tests/parity"))
    options = parser.parse_args(arguments)
    reference, packages = OFFICIAL[options.model]
    with torch.no_grad():
        scores = reference(options.model)
    versions = {name: importlib.metadata.version(name) for name in (*packages, *COMMON)}
    record = {
        "model": options.model,
        "official": " ".join((reference.__doc__ or "").split()),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version(), **versions},
        "weights_sha256": state_digest(tiny.tiny_state(options.model)),
        "prompts": tiny.prompts(),
        "pictures": [picture_digest(picture) for picture in tiny.pictures()],
        "scores": [[float(f"{s:.9g}") for s in row] for row in scores.tolist()],
    }
    path = options.out / f"{options.model}-tiny.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_loaded(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        if not key.endswith("position_ids") and not torch.equal(value, state[key]):
            msg = f"the official model did not take {key} from the file"
            raise RuntimeError(msg)


if __name__ == "__main__":
    main(sys.argv[1:])
