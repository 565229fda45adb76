"""A stand-in for the laboratory's pipeline: it draws scenes with errors, at once."""

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType, SimpleNamespace

import torch
from PIL import Image

from stablepref.benchmarks.shapes.people.generators import GENERATORS, generate
from stablepref.benchmarks.shapes.world.language import parse


class DrawingPipeline:
    """Draws as one of the laboratory's generators does, by the seed of each picture.

    Args:
        level: Name of the generator.
        shows: What it draws whatever the prompt; None for the prompt.
        breaks_after: Pictures after which it is interrupted.
    """

    components: Mapping[str, object] = MappingProxyType({})
    config: Mapping[str, object] = MappingProxyType({"_name_or_path": "drawing"})
    _execution_device = torch.device("cpu")

    def __init__(
        self, level: str = "level-7", *, shows: str | None = None, breaks_after: int = 10**9
    ) -> None:
        self.generator = GENERATORS[level]
        self.shows = shows
        self.breaks_after = breaks_after
        self.drawn = 0

    def set_progress_bar_config(self, **kwargs: object) -> None:
        """It has none."""

    def __call__(
        self,
        prompt: str,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        num_images_per_prompt: int,
        generator: Sequence[torch.Generator],
    ) -> SimpleNamespace:
        """Pictures of the prompt."""
        del num_inference_steps, guidance_scale
        assert len(generator) == num_images_per_prompt
        if self.drawn >= self.breaks_after:
            raise KeyboardInterrupt
        self.drawn += num_images_per_prompt
        scene = parse(self.shows or prompt)
        chances = [random.Random(one.initial_seed()) for one in generator]
        drawn = [generate(self.generator, scene, chance).draw() for chance in chances]
        return SimpleNamespace(images=[Image.fromarray(pixels) for pixels in drawn])
