"""The pipelines of 2024 and later with random weights, each of the real architecture but tiny."""

from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from helpers.small_vae import vae

WORDS = ["a", "red", "green", "blue", "circle", "square", "dog", "cat", "left", "of", "any"]
CHAT = "{% for m in messages %}user {{ m.content }} {% endfor %}assistant"

# The sizes that a denoiser and the ControlNet of its kind share.
QWEN: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "axes_dims_rope": (8, 4, 4),
}


def chat_tokenizer(*, begins: bool = False) -> PreTrainedTokenizerFast:
    """Whole words, with a chat template, padding to the right.

    Args:
        begins: Every text begins with a token of its own, as Gemma's do: none is empty.
    """
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS, "<bos>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=32,
        padding_side="right",
        chat_template=CHAT,
    )


def qwen3(width: int, *, layers: int = 2) -> Qwen3Config:
    """A small text encoder."""
    return Qwen3Config(
        vocab_size=32,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )


def small_vae(channels: int) -> AutoencoderKL:
    """One whose latents are shifted and scaled."""
    return vae(channels, shift_factor=0.06, scaling_factor=1.5)


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image: packed latents, guidance by a second call, a VAE of videos."""
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "vocab_size": 32,
    }
    seeing = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
              "out_hidden_size": 16}  # fmt: skip
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, 0.0, -0.1, 0.2],
            latents_std=[1.5, 1.0, 0.7, 1.2],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config=text,
                vision_config=seeing,
                vocab_size=32,
                image_token_id=28,
                video_token_id=29,
                vision_start_token_id=30,
                vision_end_token_id=31,
            )
        ),
        tokenizer=chat_tokenizer(),
        transformer=QwenImageTransformer2DModel(**QWEN),
    )


def z_image() -> ZImagePipeline:
    """Z-Image: lists of latents, and a network with the opposite sign and time."""
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # left as memory was
        nn.init.normal_(token, std=0.02)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=small_vae(4),
        text_encoder=Qwen3Model(qwen3(16)),
        tokenizer=chat_tokenizer(),
        transformer=transformer,
    )


def flux2_klein() -> Flux2KleinPipeline:
    """FLUX.2 klein: packed latents with places of their own, batch norm before the VAE."""
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
        ),
        text_encoder=Qwen3ForCausalLM(qwen3(16, layers=28)),  # three of them are taken
        tokenizer=chat_tokenizer(),
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )


def lumina2() -> Lumina2Pipeline:
    """Lumina-Image 2.0: the opposite sign and time, guidance by a second call."""
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=2,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(300, 64, 64),
            cap_feat_dim=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=small_vae(4),
        text_encoder=Gemma2Model(
            Gemma2Config(
                vocab_size=32,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        tokenizer=chat_tokenizer(begins=True),
    )
