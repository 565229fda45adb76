"""The bundled small models: of coloured shapes, with no knowledge of the real world or of taste."""

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parent
PIPELINES: Final = {"shapes": ASSETS / "pipeline"}
"""Folders of diffusers pipelines by name:
`StableDiffusionPipeline.from_pretrained(PIPELINES["shapes"])`."""
