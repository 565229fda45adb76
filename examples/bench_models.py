"""Compare text-to-image models over a set of prompts, with intervals.

Two models are two folders of pictures here; a diffusers pipeline's name or folder works as well.

Run it: python examples/bench_models.py
"""

import random
from pathlib import Path

from PIL import Image

from stablepref.benchmarks.bench.run import bench
from stablepref.benchmarks.bench.statistics.summary import summarise
from stablepref.benchmarks.shapes.people.generators import GENERATORS, generate
from stablepref.benchmarks.shapes.prompt_set import prompts_csv
from stablepref.benchmarks.shapes.world.prompts import lab_prompts


def main(out: Path = Path("example-bench"), per_category: int = 3) -> None:
    """Draw as a poor and a good generator, score both, and say which one people would prefer."""
    out.mkdir(parents=True, exist_ok=True)
    prompts = lab_prompts(per_category=per_category)
    (out / "prompts.csv").write_text(prompts_csv(prompts))
    for name in ("level-3", "level-9"):
        (out / name).mkdir(exist_ok=True)
        rng = random.Random(name)
        for place, one in enumerate(prompts):
            picture = generate(GENERATORS[name], one.scene, rng).draw()
            Image.fromarray(picture).save(out / name / f"{place:05d}.png")

    models = [str(out / "level-3"), str(out / "level-9")]
    table = bench(out / "prompts.csv", models, ["shapes", "oracle"], out=out / "run")
    for pair in summarise(table).pairs:
        chance = f"{pair.win_rate:.0%} ({pair.low:.0%} to {pair.high:.0%})"
        print(f"{pair.scorer}: a picture by {pair.a} beats one by {pair.b} in {chance}")


if __name__ == "__main__":
    main()
