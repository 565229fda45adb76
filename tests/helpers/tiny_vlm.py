"""Tiny vision-language models of transformers on random weights, each in a folder of its own."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

SPECIAL = [
    "endoftext",
    "im_start",
    "im_end",
    "vision_start",
    "vision_end",
    "image_pad",
    "video_pad",
]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2's tokenizer, whose pattern transformers 5 has in its code, splits text."""
WORDS = 'Does this figure image show "a red circle"? Please answer Yes or No. two three yes'
PENALTY = 1.3
"""Of repetition, in the generation configurations that `save_qwen` writes."""


def save_qwen(folder: Path, *, third: bool = False, seed: int = 0) -> Path:
    """A Qwen2.5-VL, or a Qwen3-VL with two levels of DeepStack, of some 200 thousand parameters."""
    import transformers as tf  # noqa: PLC0415 - its models are imported one by one

    special = [f"<|{name}|>" for name in SPECIAL]
    core = Tokenizer(models.BPE())
    core.decoder = decoders.ByteLevel()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [WORDS] * 50,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = tf.Qwen2TokenizerFast(
        tokenizer_object=core,
        unk_token=None,
        bos_token=None,
        eos_token=special[2],
        pad_token=special[0],
        additional_special_tokens=special[1:],
    )
    number = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(special), strict=True))
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 3, 3],
        },
        "tie_word_embeddings": False,
        "bos_token_id": number["endoftext"],
        "eos_token_id": number["im_end"],
    }
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "out_hidden_size": 64,
        "num_heads": 2,
        "intermediate_size": 48,
    }
    ids = {f"{name}_token_id": number[f"{name}_pad"] for name in ("image", "video")}
    ids |= {f"vision_{end}_token_id": number[f"vision_{end}"] for end in ("start", "end")}
    if third:
        vision |= {"depth": 3, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        config = tf.Qwen3VLConfig(text_config={**text, "head_dim": 16}, vision_config=vision, **ids)
        network: Any = tf.Qwen3VLForConditionalGeneration
        kind, video, patch = tf.Qwen3VLProcessor, tf.Qwen3VLVideoProcessor(), 16
    else:
        vision |= {"depth": 2, "window_size": 56, "fullatt_block_indexes": [1]}
        config = tf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        network = tf.Qwen2_5_VLForConditionalGeneration
        kind, video, patch = tf.Qwen2_5_VLProcessor, tf.Qwen2VLVideoProcessor(), 14
    token = 4 * patch**2
    images = tf.Qwen2VLImageProcessor(
        patch_size=patch, size={"shortest_edge": 4 * token, "longest_edge": 16 * token}
    )
    _save(network(config), folder, seed)
    kind(images, tokenizer, video, chat_template=_QWEN_CHAT).save_pretrained(folder)
    return folder


def save_idefics(folder: Path, *, seed: int = 0) -> Path:
    """An Idefics3: SigLIP tiles of several rows and columns, and a Llama."""
    import transformers as tf  # noqa: PLC0415

    core = Tokenizer(models.BPE())
    core.decoder = decoders.ByteLevel()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>"]
    special += ["<global-img>", "<end_of_utterance>", "<pad>"]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [WORDS] * 50,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<end_of_utterance>",
        pad_token="<pad>",
        additional_special_tokens=special[:5] + special[7:],
    )
    config = tf.Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer) + 8,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    images = tf.Idefics3ImageProcessor(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True
    )
    _save(tf.Idefics3ForConditionalGeneration(config), folder, seed)
    processor = tf.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=_IDEFICS_CHAT
    )
    processor.save_pretrained(folder)
    return folder


def save_llava(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA: CLIP and a Llama, whose positions are those of text."""
    import transformers as tf  # noqa: PLC0415

    core = Tokenizer(models.BPE())
    core.decoder = decoders.ByteLevel()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator(
        [WORDS] * 50,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    config = tf.LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer) + 8,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "projection_dim": 16,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    images = tf.CLIPImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    _save(tf.LlavaForConditionalGeneration(config), folder, seed)
    processor = tf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_CHAT,
    )
    processor.save_pretrained(folder)
    return folder


_QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDEFICS_CHAT = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}:{% for c in m.content %}"
    "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_LLAVA_CHAT = (
    "{% for m in messages %}{{ m.role | upper }}: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _save(model: Any, folder: Path, seed: int) -> None:  # noqa: ANN401 - of transformers
    """Write a model on random weights that matter: the usual 0.02 leaves attention near uniform."""
    torch.manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.05)
    model.generation_config.repetition_penalty = PENALTY
    model.save_pretrained(folder)
