"""How a fine-tuning is monitored: sheets of samples, and signs of reward hacking in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import torch

from stablepref.output.durable import replacing
from stablepref.output.sheet import contact_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

    from ..diffusion.sampling import SamplingLoop
    from ..monitor import Report, RewardMonitor
    from .batches import Picture

SAMPLES: Final = "samples"
"""The folder of sheets in a training's folder."""


@final
@dataclass(frozen=True)
class SampleWatch:
    """The same pictures again and again while the pipeline is trained.

    Attributes:
        loop: Makes them.
        monitor: Measures them.
        pictures: Which.
        batch_size: Pictures made at once.
        folder: The training's.
    """

    loop: SamplingLoop
    monitor: RewardMonitor
    pictures: Sequence[Picture]
    batch_size: int
    folder: Path

    def visit(self, step: int, *, write: bool) -> Report:
        """Make the pictures with the present weights, and measure them.

        Args:
            step: Steps done.
            write: Also write a sheet of them.

        Raises:
            OSError: The sheet cannot be written.
            ImageError: A picture cannot be scored.
        """
        images = draw(self.loop, self.pictures, batch_size=self.batch_size)
        prompts = [picture.prompt for picture in self.pictures]
        report = self.monitor.report(images, prompts)
        if write:
            path = self.folder / SAMPLES / f"step-{step:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            title = f"after step {step}: mean reward {report.reward:.3f}"
            sheet = contact_sheet(images, prompts, title=title, frame_first=False)
            with replacing(path) as staging:
                sheet.save(staging, "PNG")
        return report


@torch.no_grad()
def draw(loop: SamplingLoop, pictures: Sequence[Picture], *, batch_size: int) -> list[Image.Image]:
    """The pictures, as the pipeline's own call makes them for the same seeds."""
    images: list[Image.Image] = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        latents = loop.sample([p.prompt for p in batch], [p.generator() for p in batch])
        images += loop.pipe.image_processor.postprocess(
            loop.decode(latents), output_type="pil", do_denormalize=[False] * len(batch)
        )
    return images
