"""The networks of the laboratory's text-to-image pipeline, and the pipeline that they make."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..world.drawing import IMAGE_SIZE
from .words import TEXT_LENGTH, build_tokenizer, write_vocabulary_files

LATENT_CHANNELS = 4
LATENT_SIZE = IMAGE_SIZE // 4
TRAIN_TIMESTEPS = 1000
STEPS = 25
"""Denoising steps of a picture, unless another number is given."""
GUIDANCE = 4.0
"""Scale of classifier-free guidance, unless another is given."""


_FIRST_LOG_VARIANCE = -6.0
# Of the first weights where a residual branch ends.
_RESIDUAL = 0.2


@dataclass(frozen=True)
class Sizes:
    """Widths and depths: 5.9 million parameters in all, 11.9 MB in half precision.

    Attributes:
        autoencoder: channels at 64, 32 and 16 pixels.
        denoiser: channels at 16, 8 and 4 latent pixels. Attention, to the text and among the
            places, is at 8 and 4: at 16 it took a third of the time.
        text: width of the text encoder.
        text_layers: its depth.
        heads: attention heads, everywhere.
        groups: of the group norms.
    """

    autoencoder: tuple[int, int, int] = (24, 48, 64)
    denoiser: tuple[int, int, int] = (64, 96, 96)
    text: int = 128
    text_layers: int = 3
    heads: int = 4
    groups: int = 8


def build_autoencoder(sizes: Sizes, *, seed: int) -> AutoencoderKL:
    """Pictures `(batch, 3, 64, 64)` in [-1, 1] to latents `(batch, 4, 16, 16)` and back.

    Without attention: a latent describes the pixels near it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoencoderKL(
            block_out_channels=sizes.autoencoder,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=sizes.groups,
            sample_size=IMAGE_SIZE,
            # Latents have mean 0 and variance 1 by `standardise_latents`.
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )
        begin_calmly(model)
    # From a variance of 1 the decoder sees little but noise and learns very slowly.
    with torch.no_grad():
        model.quant_conv.weight[LATENT_CHANNELS:] *= _RESIDUAL
        model.quant_conv.bias[LATENT_CHANNELS:] = _FIRST_LOG_VARIANCE
    return model


@torch.no_grad()
def begin_calmly(model: nn.Module) -> None:
    """Draw first weights of convolutions that keep the size of what passes.

    PyTorch's own shrink it by the square root of 3 each time, and the residual branches are as
    strong as what they add to. Begun like that, the autoencoder's error was 0.18 after 240 steps
    of four pictures; begun like this, 0.12.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            spread = layer.weight[0].numel() ** -0.5
            layer.weight.normal_(0, spread * (_RESIDUAL if name.endswith("conv2") else 1))
            if layer.bias is not None:
                layer.bias.zero_()


def build_text_encoder(sizes: Sizes, *, seed: int) -> CLIPTextModel:
    """Token ids `(batch, 32)` to states `(batch, 32, width)`."""
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.text,
        intermediate_size=4 * sizes.text,
        projection_dim=sizes.text,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(config)


def build_denoiser(sizes: Sizes, *, seed: int) -> UNet2DConditionModel:
    """Noisy latents, times and text states to v-predictions, `(batch, 4, 16, 16)`.

    Beside the attention to the text, a summary of it goes with the time into every block and scales
    what passes there: so the blocks at 16, which have no attention, know the prompt too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=sizes.denoiser,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=sizes.text,
            # Heads, in spite of its name (`UNet2DConditionModel` says why).
            attention_head_dim=sizes.heads,
            norm_num_groups=sizes.groups,
            addition_embed_type="text",
            addition_embed_type_num_heads=sizes.heads,
            resnet_time_scale_shift="scale_shift",
        )


def build_scheduler() -> DDIMScheduler:
    """DDIM (Song et al. 2021) on the cosine schedule (Nichol and Dhariwal 2021).

    The noise is total at the last step and sampling begins there, as Lin et al. 2024 ask, which
    needs v-prediction (Salimans and Ho 2022).
    """
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        # Unused by trailing steps; the pipeline wants it.
        steps_offset=1,
    )


def assemble(
    autoencoder: AutoencoderKL, text_encoder: CLIPTextModel, denoiser: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The pipeline of trained parts, without a safety checker, in evaluation mode."""
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=build_tokenizer(),
        unet=denoiser.eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline in half precision, for plain `StableDiffusionPipeline.from_pretrained`.

    The pipeline itself is halved: give one that is not needed any more. The vocabulary is written
    twice, since transformers before version 5 reads another form of it. The text encoder's
    configuration names single precision, in which all parts run unless another is given:
    transformers would otherwise take the file's, and diffusers single precision for the others.
    """
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.half()
    pipe.save_pretrained(folder)
    write_vocabulary_files(folder / "tokenizer")
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def open_pipeline(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    """Load a pipeline that `save_pipeline` wrote, in single precision, to draw and train with.

    Its convolutions are laid out with the channels last, which changes pictures by rounding alone;
    on CPUs the denoiser's forward pass takes a quarter to a third less time so.

    Args:
        folder: of the pipeline.
        device: where it is to run.
    """
    pipe = StableDiffusionPipeline.from_pretrained(folder).to(device)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    return pipe
