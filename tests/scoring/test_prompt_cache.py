"""Remembered prompt features: encoded once, forgotten when a weight changes."""

from collections.abc import Sequence

import pytest
import torch
from helpers.tiny import tiny_clip

from stablepref.models.clip import CLIPScorer
from stablepref.scoring.prompt_cache import PromptCache


@pytest.fixture
def scorer() -> CLIPScorer:
    return tiny_clip()


@pytest.fixture
def encoded(scorer: CLIPScorer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that reached the text tower."""
    seen: list[str] = []
    encode = scorer.encode_prompts

    def watched(prompts: Sequence[str]) -> torch.Tensor:
        seen.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(scorer, "encode_prompts", watched)
    return seen


def test_each_distinct_prompt_is_encoded_once(scorer: CLIPScorer, encoded: list[str]) -> None:
    features = scorer.cached_prompts(["a", "b", "a"])
    again = scorer.cached_prompts(["b", "c"])
    assert encoded == ["a", "b", "c"]
    assert torch.equal(features[0], features[2])
    assert torch.equal(features[1], again[0])
    with torch.no_grad():
        torch.testing.assert_close(features, scorer.encode_prompts(["a", "b", "a"]))


def test_only_the_most_recent_are_kept(scorer: CLIPScorer, encoded: list[str]) -> None:
    cache = PromptCache(capacity=2)
    cache.encode(scorer, ["a", "b"])
    cache.encode(scorer, ["a"])
    cache.encode(scorer, ["c"])
    cache.encode(scorer, ["a"])
    assert encoded == ["a", "b", "c"]
    cache.encode(scorer, ["b"])
    assert encoded == ["a", "b", "c", "b"]


def test_more_prompts_at_once_than_are_kept(scorer: CLIPScorer) -> None:
    prompts = [str(i) for i in range(5)]
    features = PromptCache(capacity=2).encode(scorer, prompts)
    with torch.no_grad():
        torch.testing.assert_close(features, scorer.encode_prompts(prompts))


def optimiser_step(scorer: CLIPScorer) -> None:
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=0.1)
    scorer(torch.rand(1, 3, 64, 64), ["a"]).sum().backward()
    optimiser.step()


def load_other_weights(scorer: CLIPScorer) -> None:
    state = {k: v + 0.1 for k, v in scorer.state_dict().items()}
    scorer.load_state_dict(state)


def assign_other_weights(scorer: CLIPScorer) -> None:
    state = {k: v + 0.1 for k, v in scorer.state_dict().items()}
    scorer.load_state_dict(state, assign=True)


def cast(scorer: CLIPScorer) -> None:
    scorer.to(torch.bfloat16)


@pytest.mark.parametrize("change", [optimiser_step, load_other_weights, assign_other_weights, cast])
def test_a_changed_weight_empties_the_memory(scorer: CLIPScorer, change: object) -> None:
    before = scorer.cached_prompts(["a"])
    assert callable(change)
    change(scorer)
    after = scorer.cached_prompts(["a"])
    with torch.no_grad():
        torch.testing.assert_close(after, scorer.encode_prompts(["a"]))
    assert not torch.equal(before, after)


def test_bytes_bound_what_is_kept(scorer: CLIPScorer, encoded: list[str]) -> None:
    row = scorer.cached_prompts(["x"])[0].nbytes
    encoded.clear()
    cache = PromptCache(room=2 * (row + 200))  # two short prompts with their features
    cache.encode(scorer, ["a", "b"])
    cache.encode(scorer, ["c"])
    cache.encode(scorer, ["b"])
    assert encoded == ["a", "b", "c"]
    cache.encode(scorer, ["a " * 10_000])  # by itself more than there is room for
    cache.encode(scorer, ["b"])
    assert encoded[3:] == ["a " * 10_000, "b"]


def test_a_row_does_not_keep_those_beside_it(scorer: CLIPScorer) -> None:
    cache = PromptCache()
    cache.encode(scorer, ["a", "b", "c"])
    for row in cache._rows.values():
        assert row.untyped_storage().nbytes() == row.nbytes
