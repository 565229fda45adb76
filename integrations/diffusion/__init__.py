"""What rewards need of diffusers' pipelines: denoisers, x0 predictions, sampling, latents."""
