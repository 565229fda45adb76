"""Key conversions: equal functions on both sides, and every key accounted for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from open_clip.model import CLIP

from stablepref.benchmarks.parity import layouts
from stablepref.models.convert import blip_to_ours, imagereward_to_ours, pickscore_to_open_clip
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BLOCKS = {"vision_blocks": 3, "text_blocks": 2}
FORMATS = {
    "pickscore": (
        pickscore_to_open_clip,
        partial(layouts.transformers_clip, **layouts.VIT_H),
        "vision_model.encoder.layers.1.mlp.fc1.bias",
    ),
    "imagereward": (
        imagereward_to_ours,
        layouts.imagereward,
        "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight",
    ),
    "blip": (
        blip_to_ours,
        partial(layouts.blip, prefix=""),
        "visual_encoder.blocks.2.norm1.weight",
    ),
}
Format = tuple["Callable[..., dict[str, Tensor]]", dict[str, torch.Tensor], str]


@pytest.fixture(params=sorted(FORMATS))
def official(request: pytest.FixtureRequest) -> Format:
    """A conversion, an official state dict without memory behind it, and one of its keys."""
    convert, layout, key = FORMATS[request.param]
    shapes = layout(**BLOCKS)
    return convert, {k: torch.empty(shape, device="meta") for k, shape in shapes.items()}, key


def test_transformers_clip_computes_the_same_in_open_clip() -> None:
    torch.manual_seed(0)
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "image_size": 28}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100}
    config = transformers.CLIPConfig(
        projection_dim=16,
        vision_config={**vision, "patch_size": 14, "num_attention_heads": 1, "hidden_act": "gelu"},
        text_config={
            **text,
            "max_position_embeddings": 8,
            "num_attention_heads": 2,
            "hidden_act": "gelu",
            "eos_token_id": 2,
        },
    )
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # biases and norms start at 0 and 1
    ours = CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 28, "layers": 3, "width": 64, "patch_size": 14, "head_width": 64},
        text_cfg={"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
    ).eval()
    ours.load_state_dict(pickscore_to_open_clip(theirs.state_dict()), strict=True)
    images = torch.randn(3, 3, 28, 28)
    ids = torch.tensor([[98, 5, 6, 99, 0, 0, 0, 0], [98, 7, 8, 9, 10, 11, 12, 99]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=images).logits_per_image
        image_features, text_features, scale = ours(images, ids)
    torch.testing.assert_close(scale * image_features @ text_features.T, expected)


def test_every_official_number_is_used(official: Format) -> None:
    convert, state, _ = official
    ours = convert(state)
    unused = ("blip.vision_proj", "blip.text_proj")
    if convert is blip_to_ours:
        unused = ("text_encoder.encoder.layer.0.cross", "text_encoder.encoder.layer.1.cross")
    expected = sum(v.numel() for k, v in state.items() if not k.startswith(unused))
    assert sum(v.numel() for v in ours.values()) == expected


def test_missing_key_is_named(official: Format) -> None:
    convert, state, key = official
    if convert is blip_to_ours:
        del state["text_proj.bias"]
    del state[key]
    with pytest.raises(WeightsError, match=f"the file lacks .* keys .*{key}"):
        convert(state, source="the file")


def test_unexpected_key_is_named(official: Format) -> None:
    convert, state, _ = official
    state["ema.decay"] = torch.empty(1)
    with pytest.raises(WeightsError, match=r"the file has unexpected 1 keys \(ema.decay\)"):
        convert(state, source="the file")


def test_foreign_file_names_both(official: Format) -> None:
    convert, _, _ = official
    with pytest.raises(WeightsError, match=r"lacks .* and has unexpected 7 keys") as error:
        convert({f"layer{i}.weight": torch.empty(1) for i in range(7)})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("pickscore", "text_model.embeddings.position_ids"),
        ("pickscore", "vision_model.embeddings.position_ids"),
        ("imagereward", "blip.text_encoder.embeddings.position_ids"),
        ("blip", "text_encoder.embeddings.position_ids"),
        ("blip", "text_encoder_m.encoder.layer.0.output.dense.weight"),
        ("blip", "visual_encoder_m.cls_token"),
        ("blip", "text_decoder.cls.predictions.bias"),
        ("blip", "itm_head.weight"),
        ("blip", "image_queue"),
        ("blip", "temp"),
    ],
)
def test_official_extras_are_dropped(name: str, extra: str) -> None:
    convert, layout, _ = FORMATS[name]
    state = {k: torch.empty(s, device="meta") for k, s in layout(**BLOCKS).items()}
    assert convert({**state, extra: torch.empty(1)}).keys() == convert(state).keys()
