"""Fine-tune a pipeline on a reward, and draw with the LoRA weights that come of it.

Run it: python examples/finetune.py
"""

from pathlib import Path

from diffusers import DiffusionPipeline

import stablepref
from stablepref.assets import PIPELINES
from stablepref.integrations import DifferentiableReward, finetune
from stablepref.integrations.finetune import FinetuneConfig

PROMPTS = ["a red circle left of a blue star", "two green squares", "a yellow triangle"]


def main(
    out: Path = Path("example-finetune"),
    steps: int = 6,
    batch_size: int = 4,
    sampling_steps: int = 10,
) -> None:
    """Train for a few steps: enough to see how it works, not to gain much."""
    pipe = DiffusionPipeline.from_pretrained(PIPELINES["shapes"])
    reward = DifferentiableReward(stablepref.load("shapes"), vae=pipe.vae, views=2)
    drawing = {"num_inference_steps": sampling_steps, "guidance_scale": 4.0}
    config = FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        sampling_steps=sampling_steps,
        guidance=4.0,
        samples=2,
        pictures_per_sample=1,
    )
    result = finetune(pipe, PROMPTS, reward, config, out=out / "run")
    print(f"reward {result.first.reward:.3f} -> {result.last.reward:.3f}")
    for sign in result.signs:  # a reward that rises while pictures get worse
        print(f"careful: {sign}")

    pipe.unload_lora_weights()  # the trained ones are still in place
    pipe.load_lora_weights(result.lora)  # plain diffusers, and any other tool that reads LoRA
    pipe(PROMPTS[0], **drawing).images[0].save(out / "after.png")


if __name__ == "__main__":
    main()
