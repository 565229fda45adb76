"""Training learns: from noisy people in the laboratory, and on real pictures it runs. All `slow`.

Run with ``pytest -m slow tests/test_learning.py``: about 15 minutes on two cores.
"""

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState
from stablepref.benchmarks.shapes.dataset import lab_groups, oracle_groups
from stablepref.benchmarks.shapes.settings import HPDV2

import stablepref
from stablepref.agreement import GroupMean, pairwise_accuracy
from stablepref.clip import CLIPScorer
from stablepref.data import RankedGroup
from stablepref.preprocess import Preprocess
from stablepref.recipes import recipe
from stablepref.scorer import Scorer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@cache
def held_out() -> tuple[RankedGroup, ...]:
    """Groups whose ranks are the truth."""
    return tuple(oracle_groups(lab_groups(HPDV2, split="test", groups=150)))


def oracle_agreement(scorer: Scorer) -> GroupMean:
    """Share of pairs that the scorer orders as their true utilities do."""
    groups = held_out()
    scores = [scorer.score(group.images, group.prompt) for group in groups]
    return pairwise_accuracy(scores, [group.ranks for group in groups])


@pytest.mark.parametrize("name", ["ce-shapes", "sp-shapes"])
def test_one_noisy_ranking_a_prompt_brings_the_model_nearer_to_the_truth(
    name: str, tmp_path: Path
) -> None:
    """The whole interval of the paired gain lies above two points: far from what chance does."""
    groups = list(lab_groups(HPDV2, split="train", groups=300))
    trained = stablepref.train(groups, name, out=tmp_path, progress=False)
    before, after = oracle_agreement(stablepref.load("shapes")), oracle_agreement(trained)
    gain = after.difference(before)
    assert gain.low > 0.02, (before.value, after.value, gain)


@pytest.mark.parametrize("batching", ["groups", "pairs"])
def test_real_pictures_train_a_large_model_from_scratch(
    batching: str, shared_data: Path, tmp_path: Path
) -> None:
    """ViT-B/32 on the 40 groups of the real gallery, in both forms of a batch."""
    sizes = open_clip.get_model_config("ViT-B-32")
    assert sizes is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scorer = CLIPScorer(
            {key: sizes[key] for key in ("embed_dim", "vision_cfg", "text_cfg")},
            preprocess=Preprocess("clip", 224),
            name="from scratch",
            preference_scale=None,
        )
    groups = list(stablepref.read_groups(shared_data / "hpdv2_gallery" / "groups.json"))
    assert len(groups) == 40
    few = {"steps": 3, "order_steps": 1, "warmup_steps": 0, "batch_size": 8, "views": 1}
    last_blocks = {"image_blocks": 2, "text_blocks": 2}
    config = recipe("sp-clip-l", batching=batching, log_every=1, **few, **last_blocks)
    stablepref.train(groups, config, out=tmp_path, scorer=scorer, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["pairs"] == 8 and math.isfinite(row["loss"]) for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    last = stablepref.load(tmp_path / "last")
    assert math.isfinite(last.score(groups[0].images[:1], groups[0].prompt).item())
