"""A VAE that costs nothing."""

from diffusers import AutoencoderKL


def vae(channels: int, **config: object) -> AutoencoderKL:
    """Halves each side once."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **config,
    )
