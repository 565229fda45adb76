"""A rule of one's own as a scorer, and an ensemble with a preference model.

Run it: python examples/own_scorer.py
"""

from pathlib import Path

from PIL import Image, ImageStat

import stablepref
from stablepref.benchmarks.shapes.render import draw_prompt
from stablepref.integrations import Ensemble

PROMPT = "a red circle and a blue star"


def warmth(images: list[Image.Image], prompts: list[str]) -> list[float]:
    """How much redder than blue each picture is, -1 to 1; the prompts are not used."""
    means = [ImageStat.Stat(image).mean for image in images]
    return [(red - blue) / 255 for red, _, blue in means]


def main(out: Path = Path("example-own"), n: int = 4) -> None:
    """Rank by the rule, and by two models together."""
    out.mkdir(parents=True, exist_ok=True)
    for number, (label, picture) in enumerate(draw_prompt(PROMPT, n=n)):
        picture.save(out / f"{number:02d}-{label}.png")

    rule = stablepref.FunctionScorer(warmth, name="warmth", unit="red minus blue, -1 to 1")
    stablepref.register(
        "warmth", lambda entry, files: rule
    )  # stablepref.load("warmth") and every `model=` knows it now
    for one in stablepref.rank(out, PROMPT, model="warmth"):
        print(f"warmth {one.score:+.3f}  {Path(one.name).name}")

    both = Ensemble([stablepref.load("shapes"), stablepref.load("shapes-clip")])
    for one in both.rank(out, PROMPT):
        print(f"both   {one.score:+.3f}  {Path(one.name).name}")


if __name__ == "__main__":
    main()
