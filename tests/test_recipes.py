"""Training configurations: the paper's values, what may be changed, and what is refused."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from stablepref.models.catalog import BY_NAME
from stablepref.models.families import family_member
from stablepref.recipes import FREE, RECIPES, TrainConfig, recipe

# Section 4.2: "for 30,000 steps with the AdamW optimizer following a cosine learning rate
# schedule, with 3,000 steps for optimizing with L1 and the rest for optimizing with L2. The
# initial learning rate is set at 2e-6. The AdamW optimizer is used with a mini-batch size of 64
# and the weight decay is 0.2. A warm-up period of 1,500 steps is adopted. ... the last 18 layers
# of the CLIP image encoder and the last 8 layers of the CLIP text encoder. b and tau are set at
# 0.3 and 0.2 by default. ... random horizontal flipping and random resized cropping (... [0.85, 1])
# ... to obtain 3 extra views".
SECTION_4_2 = {
    "steps": 30_000,
    "learning_rate": 2e-6,
    "batch_size": 64,
    "weight_decay": 0.2,
    "warmup_steps": 1_500,
    "image_blocks": 18,
    "text_blocks": 8,
    "b": 0.3,
    "tau": 0.2,
    "crop_area": (0.85, 1.0),
    "hflip": True,
}
TWO_STEPS = {
    "order_steps": 3_000,
    "views": 3,
    "loss": "stable-preference",
    "anti_interference": True,
    "margin_weighting": "softmax",
}
MODELS = {"clip-l": "clip-vit-l-14", "clip-h": "clip-vit-h-14", "clip-h-hps": "hps-v2"}


@pytest.mark.parametrize("backbone", MODELS)
def test_stable_preference_has_the_papers_values(backbone: str) -> None:
    config = recipe(f"sp-{backbone}")
    expected = SECTION_4_2 | TWO_STEPS | {"model": MODELS[backbone], "name": f"sp-{backbone}"}
    assert {name: getattr(config, name) for name in expected} == expected
    # On which the paper is silent.
    assert config.max_grad_norm is None
    assert config.train_logit_scale
    assert config.logit_scale is None
    assert config.detach_weights
    assert config.crop_ratio is None
    assert config.ties == "drop"


@pytest.mark.parametrize("backbone", MODELS)
def test_the_baseline_differs_in_the_objective_alone(backbone: str) -> None:
    objective = {"name", "loss", "order_steps", "anti_interference", "views"}
    baseline, ours = recipe(f"ce-{backbone}"), recipe(f"sp-{backbone}")
    differing = {f.name for f in fields(ours) if getattr(ours, f.name) != getattr(baseline, f.name)}
    assert differing == objective
    assert baseline.loss == "cross-entropy"
    assert baseline.views == 0
    assert not baseline.anti_interference


def test_the_laboratory_does_not_mirror() -> None:
    """Its prompts tell left from right."""
    assert not recipe("sp-shapes").hflip
    assert not recipe("ce-shapes").hflip


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_begins_from_a_known_model_and_bears_its_own_name(name: str) -> None:
    assert RECIPES[name].model in BY_NAME or family_member(RECIPES[name].model) is not None
    assert RECIPES[name].name == name


OTHERS: dict[str, Any] = {
    "name": "mine",
    "model": "shapes",
    "loss": "cross-entropy",
    "steps": 9_000,
    "order_steps": 1,
    "batch_size": 3,
    "batching": "pairs",
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "beta1": 0.0,
    "beta2": 0.5,
    "eps": 1e-8,
    "max_grad_norm": 1.5,
    "image_blocks": None,
    "text_blocks": 0,
    "train_logit_scale": False,
    "logit_scale": 5.0,
    "views": 7,
    "crop_area": (0.5, 0.6),
    "crop_ratio": (0.75, 4 / 3),
    "hflip": False,
    "augment": True,
    "b": 0.0,
    "tau": 0.1,
    "margin_weighting": "inverse",
    "detach_weights": False,
    "seed": 2**40,
    "mixed_precision": "bf16",
    "micro_batch_size": 2,
    "activation_checkpointing": True,
    "compile": True,
    "validate_every": 5,
    "checkpoint_every": 6,
    "keep_checkpoints": 1,
    "log_every": 1,
    "log_with": "wandb",
    "workers": 0,
}


def test_each_value_can_be_replaced_and_no_other_moves() -> None:
    together = {"ties": "soft", "loss": "cross-entropy", "anti_interference": False, "views": 0}
    matrices = {"lora_rank": 4, "image_blocks": 0, "text_blocks": 0}
    assert {*OTHERS, *together, *matrices} == {f.name for f in fields(TrainConfig)}
    plain = RECIPES["sp-clip-h"]
    for name, value in OTHERS.items():
        changed = recipe("sp-clip-h", **{name: value})
        assert getattr(changed, name) == value
        assert getattr(plain, name) != value
        assert replace(changed, **{name: getattr(plain, name)}) == plain
    for values in (together, together | {"loss": "uncertainty"}, matrices):
        changed = recipe("sp-clip-h", **values)
        assert {name: getattr(changed, name) for name in values} == values


def test_unknown_recipes_and_fields_are_told_what_there_is() -> None:
    with pytest.raises(ValueError, match="no recipe 'sp-clip'; expected one of sp-clip-l, "):
        recipe("sp-clip")
    with pytest.raises(ValueError, match=r"unknown rate, step; a recipe has name, model, .*steps"):
        recipe("sp-clip-l", step=1, rate=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"steps": 0}, "steps is 0; expected more than 0"),
        ({"batch_size": -1}, "batch_size is -1; expected more than 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected more than 0"),
        ({"tau": 0}, "tau is 0; expected more than 0"),
        ({"eps": 0.0}, "eps is 0.0; expected more than 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected more than 0"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0; expected more than 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0; expected more than 0"),
        ({"log_every": 0}, "log_every is 0; expected more than 0"),
        ({"validate_every": 0}, "validate_every is 0; expected more than 0"),
        ({"checkpoint_every": None}, "checkpoint_every is None; expected a whole number"),
        ({"b": -0.1}, "b is -0.1; expected 0 or more"),
        ({"b": float("nan")}, "b is nan; expected a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; expected a finite number"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; expected 0 or more"),
        ({"beta1": 1.0}, "beta1 is 1.0; expected 0 or more, and less than 1"),
        ({"beta2": -0.1}, "beta2 is -0.1; expected 0 or more, and less than 1"),
        ({"image_blocks": -1}, "image_blocks is -1; expected 0 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"workers": -1}, "workers is -1; expected 0 or more"),
        ({"views": -1}, "views is -1; expected 0 or more"),
        ({"name": ""}, "name is ''; expected a text that is not blank"),
        ({"model": None}, "model is None; expected a text"),
        ({"steps": 10.0}, "steps is 10.0; expected a whole number"),
        ({"steps": "10"}, "steps is '10'; expected a whole number"),
        ({"hflip": "no"}, "hflip is 'no'; expected True or False"),
        (
            {"loss": "hinge"},
            "loss is 'hinge'; expected 'stable-preference', 'cross-entropy' or 'uncertainty'",
        ),
        ({"batching": "rows"}, "batching is 'rows'; expected 'groups' or 'pairs'"),
        ({"mixed_precision": "fp8"}, "expected 'no', 'bf16' or 'fp16' or None"),
        ({"log_with": "aim"}, "expected 'tensorboard' or 'wandb' or None"),
        ({"logit_scale": 0.5}, "logit_scale is 0.5; expected 1 or more, and 100 or less"),
        ({"logit_scale": 101}, "logit_scale is 101; expected 1 or more, and 100 or less"),
        ({"crop_area": (0.0, 1.0)}, "crop_area is (0.0, 1.0); expected 0 < low <= high <= 1"),
        ({"crop_area": (0.9, 0.8)}, "crop_area is (0.9, 0.8); expected 0 < low <= high <= 1"),
        ({"crop_area": (0.9, 1.1)}, "crop_area is (0.9, 1.1); expected 0 < low <= high <= 1"),
        ({"crop_area": 0.9}, "crop_area is 0.9; expected 2 finite numbers"),
        ({"crop_ratio": (4 / 3, 3 / 4)}, "expected 0 < low <= high"),
        ({"order_steps": 30_001}, "order_steps is 30001 of 30000 steps; expected no more"),
        ({"steps": 100}, "order_steps is 3000 and warmup_steps is 1500 of 100 steps"),
        ({"lora_rank": 4}, "image_blocks is 18, text_blocks 8; expected 0 for both"),
        ({"lora_rank": 0}, "lora_rank is 0; expected more than 0"),
        ({"loss": "uncertainty"}, "expected anti_interference=False and views=0"),
        ({"ties": "soft"}, "ties='soft' needs loss='cross-entropy' and anti_interference=False"),
        ({"anti_interference": False}, "views is 3, but without the anti-interference loss"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"expected|needs") as error:
        recipe("sp-clip-h", **value)
    assert message in str(error.value)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["sp-clip-l"].steps = 1  # type: ignore[misc] # that it is refused is the point


def test_exact_values_come_back_from_json() -> None:
    config = recipe("sp-clip-h", crop_ratio=(0.75, 1.25), seed=3)
    values = json.loads(json.dumps(config.exact_values()))
    assert values.keys() == {f.name for f in fields(TrainConfig)} - FREE
    assert TrainConfig(**values, name=config.name) == config


def test_recipes_are_read_without_torch() -> None:
    code = "import sys, stablepref.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
