"""Training runs on real pictures with a real architecture. `slow`.

Run with ``pytest -m slow tests/test_learning.py``: about a minute on two cores.
"""

import json
import math
from pathlib import Path

import open_clip
import pytest
import torch

import stablepref
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.recipes import recipe

pytestmark = pytest.mark.slow


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
