"""Two scorers are told apart by their weights, not by their names or places."""

import copy
import json

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.weights.fingerprint import (
    fingerprint,
    part_digests,
    scheduler_digest,
    text_digest,
    weights_digest,
)


def test_equal_weights_are_equal_wherever_they_are() -> None:
    scorer = tiny_clip()
    digest = weights_digest(scorer)
    assert weights_digest(tiny_clip(name="other")) == digest
    assert weights_digest(copy.deepcopy(scorer)) == digest


def test_every_weight_counts() -> None:
    scorer = tiny_clip()
    weights = list(scorer.parameters())
    digests = {weights_digest(scorer)}
    for weight in weights:
        before = weight.data
        weight.data = before + 0.125
        digests.add(weights_digest(scorer))
        weight.data = before
    assert len(digests) == len(weights) + 1


def test_parts_are_told_apart_and_what_has_no_weights_is_left_out() -> None:
    parts = {"vae": torch.nn.Linear(2, 2), "scheduler": object(), "unet": torch.nn.Linear(2, 3)}
    digests = part_digests(parts)
    assert list(digests) == ["unet", "vae"]
    assert digests["vae"] == weights_digest(parts["vae"])  # type: ignore[arg-type] # a module


def test_weights_out_of_reach_count_by_name_and_shape() -> None:
    with torch.device("meta"):
        two, three = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    assert weights_digest(two) != weights_digest(three)
    assert weights_digest(two) == weights_digest(torch.nn.Linear(2, 2, device="meta"))


def test_schedulers_are_told_apart_by_their_settings() -> None:
    digests = {
        scheduler_digest(one)
        for one in (
            DDIMScheduler(),
            DDIMScheduler(prediction_type="v_prediction"),
            DDIMScheduler(beta_schedule="scaled_linear"),
            DDPMScheduler(),
            None,
        )
    }
    assert len(digests) == 5
    assert scheduler_digest(DDIMScheduler()) in digests
    older = DDIMScheduler()
    older.register_to_config(_diffusers_version="0.1")
    assert scheduler_digest(older) in digests


def test_fingerprints_differ_where_values_do() -> None:
    red, blue = (Image.new("RGB", (60, 40), colour) for colour in ("red", "blue"))
    values = [None, 1, 1.5, "a", red, blue, np.zeros(3), np.zeros((3, 1)), [red, 1], {"a": red}]
    prints = [json.dumps(fingerprint(value)) for value in values]
    assert len(set(prints)) == len(values)
    assert fingerprint(red.copy()) == fingerprint(red)
    assert fingerprint(test_every_weight_counts) == "builtins.function"


def test_texts_count_in_their_order_and_with_their_bounds() -> None:
    lists = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], ["a\ud800"]]
    assert len({text_digest(texts) for texts in lists}) == len(lists)
    assert text_digest(iter(["a", "b"])) == text_digest(["a", "b"])
