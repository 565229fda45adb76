"""Pipelines of diffusers with random weights, each of the real architecture but tiny."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from helpers.small_vae import vae
from helpers.tiny_transformers import flux2_klein, lumina2, qwen_image, z_image

WORDS = ["a", "red", "green", "blue", "circle", "square", "dog", "cat", "left", "of", "any"]


# The sizes that a denoiser and the ControlNet of its kind share.
SDXL_UNET: dict[str, Any] = {
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 80,
    "cross_attention_dim": 64,
}
FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
SANA: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": 32,
    "sample_size": 16,
}


def clip_tokenizer() -> CLIPTokenizer:
    """A real CLIPTokenizer whose tokens are single letters."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(entries)}
    with TemporaryDirectory() as folder:  # the form that every version of transformers reads
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    return tokenizer


def word_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """Whole words, an end token, padding to the right."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def clip_text(*, projection: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Two layers of width 32."""
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        projection_dim=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5_text() -> T5EncoderModel:
    """Two layers of width 32."""
    return T5EncoderModel(
        T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    )


def unet(**config: object) -> UNet2DConditionModel:
    """Two levels."""
    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **config,
    )


def sd() -> StableDiffusionPipeline:
    """Stable Diffusion 1.x."""
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(cross_attention_dim=32, attention_head_dim=4),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL."""
    return StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(**SDXL_UNET),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False),
        add_watermarker=False,
    )


def sd3_transformer(channels: int, *, layers: int = 1) -> SD3Transformer2DModel:
    """Few blocks."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=channels,
        num_layers=layers,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=channels,
    )


def sd3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3."""
    return StableDiffusion3Pipeline(
        transformer=sd3_transformer(4),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projection=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(),
        tokenizer_3=word_tokenizer(32),
    )


def flux() -> FluxPipeline:
    """Flux, with packed latents."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=word_tokenizer(32),
        transformer=FluxTransformer2DModel(**FLUX),
    )


def pixart() -> PixArtSigmaPipeline:
    """PixArt-Sigma."""
    return PixArtSigmaPipeline(
        tokenizer=word_tokenizer(32),
        text_encoder=t5_text(),
        vae=vae(4),
        transformer=PixArtTransformer2DModel(
            sample_size=16,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )


def sana_transformer(*, layers: int = 1) -> SanaTransformer2DModel:
    """Few blocks."""
    return SanaTransformer2DModel(**SANA, num_layers=layers)


def sana() -> SanaPipeline:
    """Sana, with a deep-compression autoencoder and a Gemma text encoder."""
    return SanaPipeline(
        tokenizer=word_tokenizer(32),
        text_encoder=Gemma2Model(
            Gemma2Config(
                vocab_size=32,
                hidden_size=32,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "ResBlock"),
            decoder_block_types=("ResBlock", "ResBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ),
        transformer=sana_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def lcm() -> LatentConsistencyModelPipeline:
    """A latent consistency model: few steps with noise, guidance as an input."""
    return LatentConsistencyModelPipeline(
        vae=vae(4),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(cross_attention_dim=32, attention_head_dim=4, time_cond_proj_dim=16),
        scheduler=LCMScheduler(beta_schedule="scaled_linear", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


# Each with the arguments of a short run at 32 pixels.
KINDS: dict[str, tuple[Callable[[], DiffusionPipeline], dict[str, object]]] = {
    "sd": (sd, {}),
    "sdxl": (sdxl, {}),
    "sd3": (sd3, {"max_sequence_length": 32}),
    "flux": (flux, {"max_sequence_length": 32}),
    "pixart": (pixart, {"max_sequence_length": 32, "use_resolution_binning": False}),
    "sana": (sana, {"max_sequence_length": 32, "use_resolution_binning": False}),
}


def pixart_alpha() -> PixArtAlphaPipeline:
    """The class before Sigma, of the same parts."""
    return PixArtAlphaPipeline(**pixart().components)


LATER: dict[str, tuple[Callable[[], DiffusionPipeline], dict[str, object]]] = {
    "lcm": (lcm, {}),
    "pixart-alpha": (pixart_alpha, KINDS["pixart"][1]),
    "qwen": (qwen_image, {"negative_prompt": " "}),
    "z-image": (z_image, {"max_sequence_length": 32}),
    "flux2": (flux2_klein, {"max_sequence_length": 32}),
    "lumina2": (lumina2, {"max_sequence_length": 48}),
}
SHORT: dict[str, object] = {"num_inference_steps": 2, "height": 32, "width": 32}


def often_or_slow(kinds: Iterable[str], *often: str) -> list[Any]:
    """Kinds of pipelines for a test; all but the named ones, which go other ways, are slow."""
    return [pytest.param(kind, marks=[] if kind in often else pytest.mark.slow) for kind in kinds]


def short_run(kind: str) -> dict[str, object]:
    """The arguments of a short run of a kind of pipeline."""
    _, arguments = {**KINDS, **LATER}[kind]
    return {**SHORT, **arguments}


def build(kind: str) -> tuple[DiffusionPipeline, dict[str, object]]:
    """A pipeline, equal on every call, and the arguments of a short run."""
    make, _ = {**KINDS, **LATER}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = make()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as `from_pretrained` leaves them
    return pipe, short_run(kind)
