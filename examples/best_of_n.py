"""Make many pictures of a prompt and keep the best ones.

Run it: python examples/best_of_n.py
"""

from pathlib import Path

from diffusers import DiffusionPipeline

from stablepref.assets import PIPELINES
from stablepref.integrations import best_of_n

PROMPT = "a red circle left of a blue star"


def main(out: Path = Path("example-selection"), n: int = 24, steps: int = 15) -> None:
    """Choose among candidates, and make the best one again from its seed."""
    pipe = DiffusionPipeline.from_pretrained(PIPELINES["shapes"])  # or any model of yours
    options = {"num_inference_steps": steps, "guidance_scale": 4.0}

    selection = best_of_n(pipe, PROMPT, "shapes", n=n, keep=min(4, n), out=out, **options)
    print(f"the best of {n} is seed {selection.seed}: {max(selection.scores):.3f}")
    if selection.tie:
        print(
            f"the runner-up is as good: {selection.margin:.3f} apart, spread {selection.spread:.3f}"
        )
    selection.save(out)
    print(f"look at {out / 'candidates.html'}")

    again = best_of_n(pipe, PROMPT, "shapes", n=1, seed=selection.seed, **options)
    again.image.save(out / "again.png")


if __name__ == "__main__":
    main()
