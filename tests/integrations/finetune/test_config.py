"""A fine-tuning's configuration: what does not go together is told."""

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from diffusers.optimization import get_scheduler

from stablepref.integrations.finetune.config import FREE, FinetuneConfig


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "ppo"}, "method is 'ppo'; expected 'draft', .*'grpo' or 'dpo'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected a finite number"),
        ({"lr_scheduler": "polynomial"}, "is 'polynomial'; expected 'constant', .* or 'cosine'"),
        ({"warmup_steps": -1}, "warmup_steps is -1; expected 0 or more"),
        ({"last_steps": 51}, "last_steps is 51 of 50 sampling_steps; expected no more"),
        ({"eta": 0.0, "method": "ddpo"}, "eta is 0.0; expected more than 0"),
        ({"eta": 1.5}, "eta is 1.5; expected more than 0, and 1 or less"),
        ({"batch_size": 5, "pictures_per_prompt": 2}, "expected a multiple of the 2"),
        ({"batch_size": 6, "method": "ddpo"}, "expected a multiple of the 4"),
        ({"method": "ddpo", "pictures_per_prompt": 1}, "needs 2 or more"),
        ({"method": "nft", "pictures_per_prompt": 1}, "needs 2 or more"),
        ({"nft_timesteps": 9, "sampling_steps": 8}, "nft_timesteps is 9 of 8 sampling_steps"),
        ({"nft_old": "never"}, "nft_old is 'never'; expected 'copy', .* or 'steady'"),
        ({"ema": 1.0}, "ema is 1.0; expected 0 or more, and less than 1"),
        ({"rank": -1}, "rank is -1; expected 0 or more"),
        ({"rank": 0, "lora_alpha": 4}, "rank is 0, which trains all weights without LoRA"),
    ],
)
def test_wrong_values_are_told(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FinetuneConfig(**settings)


def test_what_a_step_is_made_of() -> None:
    assert FinetuneConfig().group == 1
    assert FinetuneConfig(method="ddpo").group == 4
    assert FinetuneConfig(method="ddpo", pictures_per_prompt=8).group == 8
    assert FinetuneConfig(method="nft").group == 8


def test_defaults_that_differ_by_method() -> None:
    """DDPO's two updates are ddpo-pytorch's choice, NFT's and GRPO's guidance their papers'."""
    draft, ddpo, nft = (FinetuneConfig(method=name) for name in ("draft", "ddpo", "nft"))
    assert [c.update_count for c in (ddpo, nft)] == [2, 1]
    assert [c.ema_decay for c in (draft, ddpo, nft)] == [0.0, 0.0, 0.9]
    given = FinetuneConfig(method="nft", guidance=4.0, updates=3, ema=0.0)
    assert (given.update_count, given.ema_decay) == (3, 0.0)


def test_every_field_says_what_it_means() -> None:
    hints = get_type_hints(FinetuneConfig, include_extras=True)
    assert all(len(get_args(hints[field.name])[1]) > 5 for field in fields(FinetuneConfig))
    exact = set(FinetuneConfig(lr_scheduler="cosine").exact_values())
    assert exact | (FREE - {"steps"}) == {field.name for field in fields(FinetuneConfig)}
    assert exact & FREE == {"steps"}
    assert set(FinetuneConfig().exact_values()) == exact - {"steps", "lr_scheduler"}


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_learning_rate_falls_as_in_diffusers(name: str) -> None:
    """Rises are our own: from the first step on, where diffusers' first step does nothing."""
    config = FinetuneConfig(steps=7, learning_rate=0.2, lr_scheduler=name)  # type: ignore[arg-type] # parametrized
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=7)
    for step in range(7):
        assert config.learning_rate_at(step) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    risen = replace(config, steps=10, warmup_steps=3)
    assert [risen.learning_rate_at(s) for s in (0, 1, 2)] == pytest.approx([0.2 / 3, 0.4 / 3, 0.2])
    for step in range(7):
        assert risen.learning_rate_at(step + 3) == pytest.approx(config.learning_rate_at(step))
