"""Two scorers are told apart by their weights, not by their names or places."""

import copy

import torch
from tiny import tiny_clip

from stablepref.fingerprint import weights_digest


def test_equal_weights_are_equal_wherever_they_are() -> None:
    scorer = tiny_clip()
    digest = weights_digest(scorer)
    assert weights_digest(tiny_clip(name="other")) == digest
    assert weights_digest(copy.deepcopy(scorer)) == digest


def test_every_weight_counts() -> None:
    digests = set()
    for number, _ in enumerate(tiny_clip().parameters()):
        scorer = tiny_clip()
        with torch.no_grad():
            list(scorer.parameters())[number].add_(0.125)
        digests.add(weights_digest(scorer))
    assert len(digests | {weights_digest(tiny_clip())}) == number + 2
