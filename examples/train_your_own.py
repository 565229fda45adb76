"""Train a preference model on rankings, and measure how far it agrees with people.

Here the pictures are drawn and the people simulated; a file of your own rankings takes their place.

Run it: python examples/train_your_own.py
"""

from pathlib import Path

import stablepref
from stablepref.benchmarks.shapes.people.dataset import write_dataset
from stablepref.benchmarks.shapes.people.settings import HPDV2


def main(
    out: Path = Path("example-training"), groups: int = 60, held_out: int = 20, steps: int = 20
) -> None:
    """Write rankings, train on them, and evaluate on others."""
    sizes = {"train": groups, "validation": held_out, "test": held_out}
    write_dataset(out / "data", HPDV2, sizes)
    train, validation, test = (
        list(stablepref.read_groups(out / "data" / f"{name}.jsonl"))
        for name in ("train", "validation", "test")
    )
    config = stablepref.recipe(
        "sp-shapes", steps=steps, order_steps=steps // 2, warmup_steps=1, batch_size=16
    )
    stablepref.train(train, config, out=out / "run", validation=validation)

    mine = stablepref.load(out / "run" / "best")
    for scorer in (stablepref.load("shapes-clip"), mine):
        report = stablepref.evaluate(scorer, test, perturbations=())
        found = report.pairwise.interval()
        print(f"{scorer.name}: {found.value:.1%} of pairs, {found.low:.1%} to {found.high:.1%}")


if __name__ == "__main__":
    main()
