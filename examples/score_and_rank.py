"""Score pictures against a prompt, put them in order, and compare two of them.

Run it: python examples/score_and_rank.py
"""

from pathlib import Path

import stablepref
from stablepref.benchmarks.shapes.render import draw_prompt

PROMPT = "a red circle and a blue star"


def main(out: Path = Path("example-scenes"), n: int = 6) -> None:
    """Draw pictures, of which one is right, and judge them."""
    out.mkdir(parents=True, exist_ok=True)
    for number, (label, picture) in enumerate(draw_prompt(PROMPT, n=n)):
        picture.save(out / f"{number:02d}-{label}.png")

    scores = stablepref.score(out, PROMPT, model="shapes")  # a tensor, in the folder's order
    print(f"scores: {[round(score, 3) for score in scores.tolist()]}")

    ranking = stablepref.rank(out, PROMPT, model="shapes", views=4)
    for place, one in enumerate(ranking, start=1):
        print(f"{place}. {one.score:.3f} ± {one.spread:.3f}  {Path(one.name).name}")

    best, second, *_ = ranking
    choice = stablepref.compare(best.name, second.name, PROMPT, model="shapes")
    print(f"preferred: {choice.preferred}, with probability {choice.probability:.2f}")

    # A stream holds a batch at a time, of a million pictures too, and names what it cannot read.
    scorer = stablepref.load("shapes")
    images = [*sorted(out.glob("*.png")), "no-such-file.png"]
    for one in scorer.stream(images, PROMPT, on_error="nan"):
        if one.error is not None:
            print(f"not scored: {one.error}")


if __name__ == "__main__":
    main()
