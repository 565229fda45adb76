"""The towers of open_clip's models in the order of their computation, for training."""

from __future__ import annotations

from typing import Any, Final

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import nn

from stablepref.scoring.towers import Tower

AFTER: Final = ("ln_post", "proj", "attn_pool", "attn_pool_contrastive")
TIMM_BLOCKS: Final = ("blocks", "stages", "layers")
TIMM_AFTER: Final = ("norm", "fc_norm", "attn_pool", "pool", "final_conv", "head")
TEXT_BLOCKS: Final = ("layer", "block", "layers")
TEXT_FIRST: Final = ("embeddings", "embed_tokens", "embed_positions")
TEXT_AFTER: Final = ("layer_norm", "final_layer_norm")


def image_tower(visual: nn.Module, name: str) -> Tower:
    """The image tower of one of open_clip's models.

    Args:
        visual: The model's `visual`.
        name: What errors call the model.

    Raises:
        ValueError: Its blocks are not where those of known architectures are.
    """
    if isinstance(visual, VisionTransformer):
        first = ("conv1", "class_embedding", "positional_embedding", "ln_pre")
        blocks = list(visual.transformer.resblocks)
        return Tower(_parts(visual, first), blocks, _parts(visual, AFTER))
    if isinstance(visual, ModifiedResNet):
        stem = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        return Tower(
            _parts(visual, stem), [b for stage in stages for b in stage], [visual.attnpool]
        )
    if isinstance(visual, TimmModel):
        trunk: Any = visual.trunk
        where = next((where for where in TIMM_BLOCKS if len(getattr(trunk, where, ()))), None)
        if where is not None:
            own = [
                key for key, _ in (*trunk.named_children(), *trunk.named_parameters(recurse=False))
            ]
            before = [key for key in own if key not in (where, *TIMM_AFTER)]
            last = [*_parts(trunk, TIMM_AFTER), visual.head]
            return Tower(_parts(trunk, before), list(getattr(trunk, where)), last)
    msg = (
        f"{name} has an image tower of the kind {type(visual).__name__}, whose blocks are not "
        "known; expected a vision transformer, a ResNet, or a model of timm with blocks or stages"
    )
    raise ValueError(msg)


def text_tower(model: Any, name: str) -> Tower:  # noqa: ANN401 - one of open_clip's models
    """The text tower of one of open_clip's models.

    Args:
        model: A `CLIP`, `CustomTextCLIP` or `CoCa`.
        name: What errors call the model.

    Raises:
        ValueError: Its blocks are not where those of known architectures are.
    """
    text = getattr(model, "text", model)
    if text is model or isinstance(text, TextTransformer):
        first = ("token_embedding", "positional_embedding", "cls_emb")
        blocks = list(text.transformer.resblocks)
        return Tower(_parts(text, first), blocks, _parts(text, ("ln_final", "text_projection")))
    encoder = getattr(text.transformer, "encoder", text.transformer)
    where = next((where for where in TEXT_BLOCKS if hasattr(encoder, where)), None)
    if where is not None:
        before = _parts(text.transformer, TEXT_FIRST)
        after = [*_parts(encoder, TEXT_AFTER), *_parts(text.transformer, ("pooler",)), text.proj]
        return Tower(before, list(getattr(encoder, where)), after)
    msg = (
        f"{name} has a text tower of the kind {text.config.model_type}, whose blocks are not known"
    )
    raise ValueError(msg)


def _parts(module: nn.Module, names: Any) -> list[Any]:  # noqa: ANN401 - a sequence of names
    found = (getattr(module, name, None) for name in names)
    return [part for part in found if isinstance(part, (nn.Module, nn.Parameter))]
