"""The bundled preference model: one command, a choice by validation alone, and its card."""

import re
from pathlib import Path

import pytest
import torch
from stablepref.benchmarks.shapes import preference_model
from stablepref.benchmarks.shapes.dataset import oracle_groups
from stablepref.benchmarks.shapes.preference_model import main

import stablepref
from stablepref.agreement import pairwise_accuracy
from stablepref.pretrained import WEIGHTS_FILE
from stablepref.scorer import Scorer

SIZES = {"groups": 4, "held_out": 3, "seeds": 2, "name": "sp-shapes", "steps": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short trainings and the model."""
    out = tmp_path_factory.mktemp("preference")
    main(out=out, **SIZES)  # type: ignore[arg-type] # options of several types
    return out


def accuracy(scorer: Scorer, path: Path, *, truth: bool) -> float:
    groups = list(stablepref.read_groups(path))
    ranks = [group.ranks for group in (oracle_groups(groups) if truth else groups)]
    return pairwise_accuracy([scorer.score(g.images, g.prompt) for g in groups], ranks).value


def cells(card: str, first: str) -> list[list[str]]:
    """The cells of the table rows whose first cell is this."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line[:1] == "|"]
    return [rest for head, *rest in rows if head.strip("*") == first]


def test_the_seed_that_agrees_best_with_validation_annotators_is_taken(made: Path) -> None:
    card = (made / "model" / "README.md").read_text()
    validation = made / "data" / "hpdv2" / "validation.jsonl"
    found = {
        seed: accuracy(
            stablepref.load(made / f"seed-{seed}" / "best", dtype="float32"),
            validation,
            truth=False,
        )
        for seed in range(2)
    }
    for seed, value in found.items():
        assert cells(card, str(seed)) == [[f"{value:.2%}"]]
    chosen = max(found, key=lambda seed: found[seed])
    assert f"| **{chosen}** |" in card
    model = stablepref.load(made / "model", dtype="float32")
    assert model.name == "shapes"
    assert model.preference_scale == 1.0
    best = stablepref.load(made / f"seed-{chosen}" / "best", dtype="float32")
    weights = best.state_dict()
    for name, ours in model.state_dict().items():  # in half precision
        torch.testing.assert_close(ours, weights[name], rtol=1e-3, atol=1e-3)


def test_the_card_tells_what_a_user_would_measure(made: Path) -> None:
    card = (made / "model" / "README.md").read_text()
    chosen = re.search(r"\*\*(\d)\*\*", card)
    assert chosen
    best = stablepref.load(made / f"seed-{chosen[1]}" / "best", dtype="float32")
    start = stablepref.load("shapes-clip", dtype="float32")
    for setting in ("hpdv2", "imagereward"):
        test = made / "data" / setting / "test.jsonl"
        for title, truth in (("the truth", True), ("ten annotators' mean", False)):
            ((before, after, _),) = cells(card, f"{title}, `{setting}`")
            assert before.startswith(f"{accuracy(start, test, truth=truth):.2%} (")
            assert after.startswith(f"{accuracy(best, test, truth=truth):.2%} (")
    assert [len(cells(card, name)) for name in ("none", "crop-0.9", "jpeg-50")] == [1, 1, 1]
    assert "hflip" not in card
    assert "nan" not in card
    assert "2 steps of 128 pairs, of them 2 in step 1" in card


def test_the_same_command_goes_on_and_writes_the_same(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (made / "model").iterdir()}

    before = files()
    assert {WEIGHTS_FILE, "README.md", "config.json"} <= before.keys()
    steps: list[int] = []
    original = preference_model.train

    def counted(*arguments: object, **options: object) -> Scorer:
        log = made / "seed-0" / "metrics.jsonl"
        size = log.stat().st_size
        model = original(*arguments, **options)  # type: ignore[arg-type] # handed on
        steps.append(log.stat().st_size - size)
        return model

    monkeypatch.setattr(preference_model, "train", counted)
    main(out=made, **SIZES)  # type: ignore[arg-type] # options of several types
    assert steps == [0, 0], "nothing is trained again"
    assert files() == before
