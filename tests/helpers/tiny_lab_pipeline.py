"""The laboratory's pipeline at its smallest, with random weights."""

from diffusers import StableDiffusionPipeline

from stablepref.benchmarks.shapes.pipeline.parts import (
    Sizes,
    assemble,
    build_autoencoder,
    build_denoiser,
    build_text_encoder,
)

TINY = Sizes(autoencoder=(8, 8, 8), denoiser=(8, 8, 8), text=16, text_layers=1, heads=2, groups=4)


def tiny_pipeline() -> StableDiffusionPipeline:
    parts = (
        build(TINY, seed=0) for build in (build_autoencoder, build_text_encoder, build_denoiser)
    )
    return assemble(*parts)
