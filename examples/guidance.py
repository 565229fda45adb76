"""Guide a pipeline towards a higher reward while it draws.

Run it: python examples/guidance.py
"""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

import stablepref
from stablepref.assets import PIPELINES
from stablepref.integrations import RewardGuidance

PROMPT = "a red circle left of a blue star"


def main(out: Path = Path("example-guidance"), n: int = 4, steps: int = 15) -> None:
    """Draw the same noise without and with guidance, and score both."""
    out.mkdir(parents=True, exist_ok=True)
    pipe = DiffusionPipeline.from_pretrained(PIPELINES["shapes"])
    pipe.set_progress_bar_config(disable=True)
    scorer = stablepref.load("shapes")
    options = {"num_inference_steps": steps, "guidance_scale": 4.0, "num_images_per_prompt": n}

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    plain = pipe(PROMPT, generator=noise(), **options).images
    guidance = RewardGuidance(pipe, PROMPT, scorer, scale=0.05, views=2)
    guided = pipe(**guidance.arguments, generator=noise(), **options).images

    for name, images in (("plain", plain), ("guided", guided)):
        print(f"{name}: mean reward {scorer.score(images, PROMPT).mean():.3f}")
        for number, image in enumerate(images):
            image.save(out / f"{number:02d}-{name}.png")


if __name__ == "__main__":
    main()
