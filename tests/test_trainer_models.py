"""Training models of other kinds than CLIP, and compiled ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ranked import SMALL, ranked_groups
from helpers.small_blip import small_scorer
from helpers.tiny import tiny_clip
from torch import Tensor

import stablepref
from stablepref.models.blip import REWARD_STD, BLIPScorer, ImageRewardScorer
from stablepref.scorer import Scorer
from stablepref.trainer import train
from stablepref.training.resume import model_to_train

BRIEF = replace(SMALL, steps=2, order_steps=1, warmup_steps=0)


@pytest.mark.parametrize("kind", [BLIPScorer, ImageRewardScorer])
def test_a_trained_blip_compares_as_it_was_trained(tmp_path: Path, kind: type[Scorer]) -> None:
    """P(a is preferred) = sigmoid(S(a) - S(b)): what the losses read differences of scores as."""
    trained = train(ranked_groups(), BRIEF, out=tmp_path, scorer=small_scorer(kind))
    loaded = stablepref.load(tmp_path / "last", device="cpu", dtype="float32")
    assert type(loaded) is kind
    assert trained.preference_scale == loaded.preference_scale == 1
    a, b = np.full((40, 40, 3), 250, np.uint8), np.full((40, 40, 3), 10, np.uint8)
    scores = loaded.score([a, b], "a fox").double()
    odds = torch.sigmoid(scores[0] - scores[1]).item()
    assert loaded.compare(a, b, "a fox").probability == pytest.approx(odds, abs=1e-5)


@pytest.mark.parametrize(("kind", "scale"), [(BLIPScorer, None), (ImageRewardScorer, REWARD_STD)])
def test_folders_from_before_keep_the_scale_of_their_kind(
    tmp_path: Path, kind: type[Scorer], scale: float | None
) -> None:
    small_scorer(kind).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("preference_scale") == scale
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stablepref.load(tmp_path).preference_scale == scale


def test_the_copy_of_a_compiled_scorer_runs_on_its_own_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compiled_form(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A plain function, as of `torch.compile`: unlike a method, a copy stays bound."""

        def run(inputs: Tensor) -> Tensor:
            return function(inputs)

        return run

    monkeypatch.setattr(torch, "compile", compiled_form)
    scorer = tiny_clip()
    scorer.compile_images()
    for compiled in (False, True):
        model = model_to_train(scorer, replace(SMALL, compile=compiled))
        pixels = torch.rand(1, 3, 64, 64)
        model.encode_images(pixels).sum().backward()
        named = dict(model.named_parameters())
        assert named["model.visual.proj"].grad is not None
        assert all(weight.grad is None for weight in scorer.parameters())


def test_a_logit_scale_to_begin_with_is_another_unit_of_the_same_cosines() -> None:
    scorer = tiny_clip()
    own = scorer.model.logit_scale.exp().item()
    model = model_to_train(scorer, replace(SMALL, logit_scale=5.0))
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = scorer(pixels, ["a dog", "a cat"]) * 5 / own
        torch.testing.assert_close(model(pixels, ["a dog", "a cat"]), expected)
    assert scorer.model.logit_scale.exp().item() == own
    kept = model_to_train(scorer, SMALL)
    assert torch.equal(kept.model.logit_scale, scorer.model.logit_scale)
    with pytest.raises(ValueError, match=r"logit_scale is 5.0, but .* has none, as only CLIP"):
        model_to_train(small_scorer(BLIPScorer), replace(SMALL, logit_scale=5.0))


@pytest.mark.slow
def test_a_compiled_training_has_the_same_losses(tmp_path: Path) -> None:
    losses = []
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        train(ranked_groups(), replace(BRIEF, compile=compiled), out=out, scorer=tiny_clip())
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
