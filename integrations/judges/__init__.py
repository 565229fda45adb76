"""Vision-language models behind an OpenAI-compatible endpoint as judges of images."""
