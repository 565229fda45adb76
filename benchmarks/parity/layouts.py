"""Names and shapes of the tensors in each official file, for any number of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Shapes = dict[str, tuple[int, ...]]

TOKENS = 49408
CONTEXT = 77
PATCHES = 16 * 16  # of 14 pixels, in an image of 224
BERT_TOKENS = 30524
VIT_L = {"vision_width": 1024, "text_width": 768, "embed_dim": 768}
VIT_H = {"vision_width": 1280, "text_width": 1024, "embed_dim": 1024}
FULL_DEPTH = {"clip-l": (24, 12), "clip-h": (32, 24), "blip": (24, 12)}
V2_HEAD = ((0, 1024, 768), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16))


def clip(
    *, vision_width: int, text_width: int, embed_dim: int, vision_blocks: int, text_blocks: int
) -> Shapes:
    """OpenAI's names, which open_clip and the HPS files share."""
    shapes: Shapes = {
        "positional_embedding": (CONTEXT, text_width),
        "text_projection": (text_width, embed_dim),
        "logit_scale": (),
        "token_embedding.weight": (TOKENS, text_width),
        "visual.class_embedding": (vision_width,),
        "visual.positional_embedding": (PATCHES + 1, vision_width),
        "visual.proj": (vision_width, embed_dim),
        "visual.conv1.weight": (vision_width, 3, 14, 14),
    }
    norms = {"ln_final": text_width, "visual.ln_pre": vision_width, "visual.ln_post": vision_width}
    shapes |= _norms(norms)
    towers = (
        ("transformer", text_width, text_blocks),
        ("visual.transformer", vision_width, vision_blocks),
    )
    for tower, width, blocks in towers:
        for block in range(blocks):
            name = f"{tower}.resblocks.{block}"
            shapes |= {
                f"{name}.attn.in_proj_weight": (3 * width, width),
                f"{name}.attn.in_proj_bias": (3 * width,),
            }
            shapes |= _norms({f"{name}.ln_1": width, f"{name}.ln_2": width})
            shapes |= _linears(
                {
                    f"{name}.attn.out_proj": (width, width),
                    f"{name}.mlp.c_fc": (4 * width, width),
                    f"{name}.mlp.c_proj": (width, 4 * width),
                }
            )
    return shapes


def transformers_clip(
    *, vision_width: int, text_width: int, embed_dim: int, vision_blocks: int, text_blocks: int
) -> Shapes:
    """The names of transformers' `CLIPModel`, which the PickScore file has."""
    shapes: Shapes = {
        "logit_scale": (),
        "text_projection.weight": (embed_dim, text_width),
        "visual_projection.weight": (embed_dim, vision_width),
        "text_model.embeddings.token_embedding.weight": (TOKENS, text_width),
        "text_model.embeddings.position_embedding.weight": (CONTEXT, text_width),
        "vision_model.embeddings.class_embedding": (vision_width,),
        "vision_model.embeddings.patch_embedding.weight": (vision_width, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (PATCHES + 1, vision_width),
    }
    shapes |= _norms(
        {
            "text_model.final_layer_norm": text_width,
            "vision_model.pre_layrnorm": vision_width,
            "vision_model.post_layernorm": vision_width,
        }
    )
    towers = (
        ("text_model", text_width, text_blocks),
        ("vision_model", vision_width, vision_blocks),
    )
    for tower, width, blocks in towers:
        for block in range(blocks):
            name = f"{tower}.encoder.layers.{block}"
            shapes |= _norms({f"{name}.layer_norm1": width, f"{name}.layer_norm2": width})
            shapes |= _linears(
                {
                    **{
                        f"{name}.self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")
                    },
                    f"{name}.mlp.fc1": (4 * width, width),
                    f"{name}.mlp.fc2": (width, 4 * width),
                }
            )
    return shapes


def blip(
    *, prefix: str, vision_blocks: int, text_blocks: int, vision: int = 1024, text: int = 768
) -> Shapes:
    """BLIP's ViT/16, BERT with cross-attention, and projections, below `prefix`; by widths."""
    shapes: Shapes = {
        "visual_encoder.cls_token": (1, 1, vision),
        "visual_encoder.pos_embed": (1, 14 * 14 + 1, vision),
        "text_encoder.embeddings.word_embeddings.weight": (BERT_TOKENS, text),
        "text_encoder.embeddings.position_embeddings.weight": (512, text),
    }
    shapes |= _norms({"visual_encoder.norm": vision, "text_encoder.embeddings.LayerNorm": text})
    shapes |= {
        "visual_encoder.patch_embed.proj.weight": (vision, 3, 16, 16),
        "visual_encoder.patch_embed.proj.bias": (vision,),
    }
    shapes |= _linears({"vision_proj": (256, vision), "text_proj": (256, text)})
    for block in range(vision_blocks):
        name = f"visual_encoder.blocks.{block}"
        shapes |= _norms({f"{name}.norm1": vision, f"{name}.norm2": vision})
        shapes |= _linears(
            {
                f"{name}.attn.qkv": (3 * vision, vision),
                f"{name}.attn.proj": (vision, vision),
                f"{name}.mlp.fc1": (4 * vision, vision),
                f"{name}.mlp.fc2": (vision, 4 * vision),
            }
        )
    for block in range(text_blocks):
        name = f"text_encoder.encoder.layer.{block}"
        for attention, context in (("attention", text), ("crossattention", vision)):
            shapes |= _linears(
                {
                    f"{name}.{attention}.self.query": (text, text),
                    f"{name}.{attention}.self.key": (text, context),
                    f"{name}.{attention}.self.value": (text, context),
                    f"{name}.{attention}.output.dense": (text, text),
                }
            )
            shapes |= _norms({f"{name}.{attention}.output.LayerNorm": text})
        shapes |= _linears(
            {
                f"{name}.intermediate.dense": (4 * text, text),
                f"{name}.output.dense": (text, 4 * text),
            }
        )
        shapes |= _norms({f"{name}.output.LayerNorm": text})
    return {prefix + key: shape for key, shape in shapes.items()}


def imagereward(*, vision_blocks: int, text_blocks: int) -> Shapes:
    """The flat dict of ImageReward.pt."""
    layout = blip(prefix="blip.", vision_blocks=vision_blocks, text_blocks=text_blocks)
    return layout | {f"mlp.{key}": shape for key, shape in aesthetic_v2().items()}


def aesthetic_v1() -> Shapes:
    """The linear head of LAION aesthetic v1."""
    return {"weight": (1, 768), "bias": (1,)}


def aesthetic_v2() -> Shapes:
    """The MLP head of LAION aesthetic v2."""
    return _linears({f"layers.{i}": (out, width) for i, out, width in V2_HEAD})


def _norms(widths: Mapping[str, int]) -> Shapes:
    return {f"{name}.{p}": (width,) for name, width in widths.items() for p in ("weight", "bias")}


def _linears(shapes: Mapping[str, tuple[int, int]]) -> Shapes:
    weights: Shapes = {f"{name}.weight": shape for name, shape in shapes.items()}
    return weights | {f"{name}.bias": (shape[0],) for name, shape in shapes.items()}
