"""Both paradigms lift the bundled model's agreement with the laboratory's truth."""

from pathlib import Path

import pytest

import stablepref
from stablepref.benchmarks.shapes.people.dataset import lab_groups, oracle_groups
from stablepref.benchmarks.shapes.people.settings import HPDV2
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.scorer import Scorer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sp-shapes", "ce-shapes"])
def test_training_on_noisy_rankings_lifts_agreement_with_the_truth(
    name: str, tmp_path: Path
) -> None:
    """Some minutes each on one core. The bound is far from 0 in units of the interval."""
    groups = list(lab_groups(HPDV2, split="train", groups=1000))
    held_out = list(lab_groups(HPDV2, split="test", groups=300))
    truth = [group.ranks for group in oracle_groups(held_out)]

    def scores(model: Scorer) -> list[list[float]]:
        return [model.score(group.images, group.prompt).tolist() for group in held_out]

    before = pairwise_accuracy(scores(stablepref.load("shapes-clip", dtype="float32")), truth)
    trained = stablepref.train(groups, stablepref.recipe(name), out=tmp_path, progress=False)
    after = pairwise_accuracy(scores(trained), truth)
    gain = after.difference(before)
    print(f"{name}: {before.value:.4f} to {after.value:.4f}, gain {gain}")
    assert gain.low > 0.005
