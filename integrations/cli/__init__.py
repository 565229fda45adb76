"""The commands that work with diffusers pipelines."""
