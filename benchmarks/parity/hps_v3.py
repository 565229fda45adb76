"""HPS v3's official files with seeded weights and made-up texts, as both sides read them.

Prompt templates belong to their models: instruction, chat template and vocabulary are made up
here, in the official formats, and given to the official code too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from .weights import seeded_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Sizes = dict[str, Any]

REWARD: Final = "<|Reward|>"
_NAMES: Final = """
endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end
vision_start vision_end vision_pad image_pad video_pad
"""
SPECIAL: Final = tuple(f"<|{name}|>" for name in _NAMES.split())
SPLIT: Final = (  # Qwen2's, which transformers 5 has in its code
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
INSTRUCTION: Final = (
    "\nLook at the picture and say how good it is. \n**Colours:**  \n- Are they right?  \n"
    "Words of the picture - {text_prompt}\n\n"
)
TAIL: Final = "\nThe marks of this picture: " + REWARD + "\n\nSTOP\n"
CHAT: Final = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou judge pictures.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLLATOR: Final = (
    f"INSTRUCTION = {INSTRUCTION!r}\n\nprompt_with_special_token = {TAIL!r}\n\n\n"
    'raise RuntimeError("this file is read, not run")\n'
)
WORDS: Final = ("the", "in", "re", "on", "er", "at", "ic", "pict", "ure", "Ġa", "Ġt", "Ġp", "ĠĠ")
"""Pieces that the made-up vocabulary merges, each from its characters, left to right."""

PROMPTS: Final = (
    "a red fox",
    "a very long prompt, " * 20,
    "é 日本 x {braces} and <|im_end|> inside",
    "a cat",
)
PICTURES: Final = ((512, 512), (300, 700), (37, 90), (1024, 640))
"""Heights and widths."""
SHAPES: Final = (
    *PICTURES,
    *((1, 1), (2, 3), (28, 28), (448, 448), (447, 449), (1000, 1000), (1024, 1024), (768, 1344)),
    *(
        (5, 900),
        (900, 5),
        (3000, 2000),
        (199, 1),
        (1, 200),
        (2, 390),
        (1, 201),
        (40, 7960),
        (640, 480),
    ),
)
"""Heights and widths whose patches are compared."""
HEAD_GAIN: Final = 2.0

TINY: Final[Sizes] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mrope_section": [2, 3, 3],
    "vision": {"depth": 2, "embed_dim": 64, "num_heads": 4},
}
TWO_LAYERS: Final[Sizes] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 2,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "mrope_section": [16, 24, 24],
    "vision": {"depth": 2, "embed_dim": 1280, "num_heads": 16},
}
CASES: Final = {"tiny": TINY, "two": TWO_LAYERS}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Made-up byte-pair vocabulary: all bytes, and a few pieces by their merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    tokens = [*map(chr, printable), *(chr(256 + i) for i in range(len(rest)))]
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
    return {token: i for i, token in enumerate(tokens)}, merges


def tokenizer_file() -> str:
    """A tokenizer.json of Qwen2's form."""
    tokens, merges = vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    added = [
        {
            "id": len(tokens) + i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(SPECIAL)
    ]
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [split, byte_level | {"use_regex": False}],
            },
            "post_processor": byte_level | {"use_regex": False},
            "decoder": byte_level | {"use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": tokens,
                "merges": [" ".join(pair) for pair in merges],
            },
        },
        ensure_ascii=False,
    )


def token_id(token: str) -> int:
    """The id of a special token; the reward token follows the others."""
    return len(vocabulary()[0]) + (*SPECIAL, REWARD).index(token)


def layout(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the official file, in the layout of transformers 4.45."""
    hidden, inner, heads = (
        sizes[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    shared = hidden // heads * sizes["num_key_value_heads"]
    rows = token_id(REWARD) + 1
    vision = sizes["vision"]
    width, merged = vision["embed_dim"], 4 * vision["embed_dim"]
    shapes: dict[str, tuple[int, ...]] = {"visual.patch_embed.proj.weight": (width, 3, 2, 14, 14)}
    for i in range(vision["depth"]):
        block = f"visual.blocks.{i}."
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", merged, width),
            ("mlp.fc2", width, merged),
        ):
            shapes |= {f"{block}{name}.weight": (out, into), f"{block}{name}.bias": (out,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    merger = "visual.merger."
    shapes |= {f"{merger}ln_q.weight": (width,), f"{merger}ln_q.bias": (width,)}
    shapes |= {f"{merger}mlp.0.weight": (merged, merged), f"{merger}mlp.0.bias": (merged,)}
    shapes |= {f"{merger}mlp.2.weight": (hidden, merged), f"{merger}mlp.2.bias": (hidden,)}
    shapes["model.embed_tokens.weight"] = (rows, hidden)
    for i in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, out in (("q", hidden), ("k", shared), ("v", shared)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (out, hidden)
            shapes[f"{layer}self_attn.{name}_proj.bias"] = (out,)
        shapes[f"{layer}self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{layer}mlp.gate_proj.weight"] = shapes[f"{layer}mlp.up_proj.weight"] = (
            inner,
            hidden,
        )
        shapes[f"{layer}mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{layer}input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}post_attention_layernorm.weight"] = (hidden,)
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (rows, hidden)}
    for i, out, into in ((0, 1024, hidden), (3, 16, 1024), (5, 2, 16)):
        shapes |= {f"rm_head.{i}.weight": (out, into), f"rm_head.{i}.bias": (out,)}
    return shapes


def official_state(sizes: Sizes) -> dict[str, Tensor]:
    """Seeded weights of the official file, float32."""
    state = seeded_state(layout(sizes), seed="hps-v3")
    gained = {k: v * HEAD_GAIN for k, v in state.items() if k.startswith("rm_head.") and v.ndim > 1}
    return state | gained


def write_official_files(sizes: Sizes, folder: Path) -> list[Path]:
    """Write the official files, in the order of the zoo entry's files."""
    paths = [
        folder / name
        for name in (
            "HPSv3.safetensors",
            "data_collator_qwen.py",
            "tokenizer.json",
            "chat_template.json",
        )
    ]
    save_file(official_state(sizes), paths[0], metadata={"format": "pt"})
    paths[1].write_text(COLLATOR, encoding="utf-8")
    paths[2].write_text(tokenizer_file(), encoding="utf-8")
    paths[3].write_text(json.dumps({"chat_template": CHAT}), encoding="utf-8")
    return paths


def picture(height: int, width: int) -> Image.Image:
    """An RGB picture of hard edges, large areas and noise, the same on every machine."""
    random = np.random.default_rng((height, width))
    side = max(1, min(height, width) // 7)
    coarse = random.integers(0, 256, (-(-height // side), -(-width // side), 3), dtype=np.int64)
    areas = coarse.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    noisy = areas + random.integers(-20, 21, (height, width, 3), dtype=np.int64)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
