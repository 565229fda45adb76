"""The towers' arithmetic: counted by hand, beside open_clip's own profile, and as recorded."""

import json
from typing import Any

import pytest
import torch
from helpers.places import ROOT
from open_clip import get_model_config

from stablepref.benchmarks.speed.__main__ import MEASURED
from stablepref.benchmarks.speed.flops import imagereward_flops, tower_flops, training_flops

RESULTS = ROOT / "benchmarks" / "results"
SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 8, "layers": 2, "width": 64, "patch_size": 4},
    "text_cfg": {"context_length": 3, "vocab_size": 11, "width": 64, "heads": 1, "layers": 1},
}


def block(tokens: int, width: int) -> int:
    """A transformer's block, product by product; a multiply-add counts as two."""
    queries_keys_values = tokens * width * 3 * width
    attention = 2 * tokens * tokens * width  # of queries with keys, and of weights with values
    output = tokens * width * width
    mlp = 2 * tokens * width * 4 * width
    return 2 * (queries_keys_values + attention + output + mlp)


def test_a_small_tower_counted_by_hand() -> None:
    """Four patches and the class token; three tokens of text; one projected row of each."""
    patches = 2 * 4 * (3 * 4 * 4) * 64
    projection = 2 * 64 * 32
    found = tower_flops(SMALL)
    assert found.image == patches + 2 * block(5, 64) + projection
    assert found.text == block(3, 64) + projection


@pytest.mark.parametrize(
    ("name", "image", "text"), [("ViT-B-32", 8.82, 5.96), ("ViT-L-14", 162.03, 13.3)]
)
def test_towers_are_those_of_open_clips_profile(name: str, image: float, text: float) -> None:
    """GFLOP in docs/model_profile.csv of open_clip's repository, which fvcore counted."""
    config: Any = get_model_config(name)
    found = tower_flops(config)
    assert found.image / 1e9 == pytest.approx(image, abs=0.005)
    assert found.text / 1e9 == pytest.approx(text, abs=0.005)


def test_imagereward_counted_by_hand() -> None:
    """196 patches of 16 pixels and the class token; 35 tokens that look at each other and them."""
    patches = 2 * 196 * (3 * 16 * 16) * 1024
    tokens, width, image_tokens, image_width = 35, 768, 197, 1024
    to_images = 2 * (
        2 * tokens * width * width  # the queries, and what comes out
        + 2 * image_tokens * image_width * width  # keys and values
        + 2 * tokens * image_tokens * width
    )
    found = imagereward_flops()
    assert found.image == patches + 24 * block(197, 1024) + 12 * (block(35, 768) + to_images)
    assert found.text == 0


def test_recorded_results_hold_the_same_counts() -> None:
    scored = [json.loads(path.read_text()) for path in RESULTS.glob("score-*.json")]
    assert len(scored) >= 2
    for report in scored:
        assert MEASURED[report["model"]]()._asdict() == report["flops"]
    (trained,) = RESULTS.glob("train-*.json")
    report = json.loads(trained.read_text())
    sizes: Any = get_model_config(report["model"])
    assert training_flops(sizes, report["job"]["image_blocks"]) == report["flops"]


def test_the_backward_pass_is_counted_where_blocks_train() -> None:
    forward = training_flops(SMALL, 0)
    assert forward == tower_flops(SMALL).image
    assert training_flops(SMALL, None) == 3 * forward
    assert training_flops(SMALL, 1) == 2 * forward


def test_counting_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    tower_flops(SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)
