"""Reference scores and tokens from the image-reward package, in its own environment."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from .cases import VOCABULARY_FILE, write_official_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image
    from torch import Tensor

Blocks = tuple[int, int]
# The mixture of encoder and decoder of BLIP, as in the configuration file beside the weights.
MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}


def imagereward(
    name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]
) -> Tensor:
    """`ImageReward.load(...).score`, image by image."""
    with _workplace(name, blocks) as (weights, config):
        package = importlib.import_module("ImageReward")
        model = package.load(str(weights), device="cpu", med_config=str(config))
        _check_loaded(model, torch.load(weights))
        return torch.tensor([model.score(prompt, list(pictures)) for prompt in prompts]).T


def blip(name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]) -> Tensor:
    """The package's `BLIPScore.score`, image by image."""
    with _workplace(name, blocks) as (weights, config):
        module = importlib.import_module("ImageReward.models.BLIPScore")
        model = module.BLIPScore(med_config=str(config), device="cpu")
        state = torch.load(weights)["model"]
        model.blip.load_state_dict(state, strict=False)
        _check_loaded(model.blip, state)
        model.eval()
        rows = []
        for picture in pictures:  # it opens files only
            file = io.BytesIO()
            picture.save(file, format="PNG")
            rows.append([model.score(prompt, file) for prompt in prompts])
        return torch.tensor(rows)


def tokens(prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of the package's tokenizer, padded to 35."""
    with _workplace("imagereward-v1", None):
        tokenizer = importlib.import_module("ImageReward.models.BLIP.blip").init_tokenizer()
        settings = {"padding": "max_length", "truncation": True, "max_length": 35}
        return [tokenizer(prompt, **settings).input_ids for prompt in prompts]


@contextmanager
def _workplace(name: str, blocks: Blocks | None) -> Iterator[tuple[Path, Path]]:
    """Official files in a folder where "bert-base-uncased" is found, and `blocks` vision blocks."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        home = Path(folder)
        depths = blocks or (0, 0)
        files = write_official_files(name, depths, home)
        bert = home / "bert-base-uncased"
        bert.mkdir()
        (home / VOCABULARY_FILE).rename(bert / VOCABULARY_FILE)
        (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        config = home / "med_config.json"
        config.write_text(json.dumps({**MED_CONFIG, "num_hidden_layers": depths[1]}))
        _set_vision_blocks(depths[0])
        yield files[0], config


def _set_vision_blocks(blocks: int) -> None:
    """Make the package's own vision transformer with another number of blocks than 24."""
    vision = importlib.import_module("ImageReward.models.BLIP.vit")
    pretrain: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")

    def create_vit(_vit: str, image_size: int, *_: object) -> tuple[torch.nn.Module, int]:
        width = 1024
        tower = vision.VisionTransformer(
            img_size=image_size, patch_size=16, embed_dim=width, depth=blocks, num_heads=16
        )
        return tower, width

    pretrain.create_vit = create_vit


def _check_loaded(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Check that all weights are loaded: the package loads without strictness."""
    for key, value in model.state_dict().items():
        if not torch.equal(value, state[key]):
            msg = f"the official model did not take {key} from the file"
            raise RuntimeError(msg)
