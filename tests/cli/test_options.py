"""Values of settings on the command line, as their fields say."""

from typing import Any

import pytest

from stablepref.cli.options import read_setting
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.recipes import TrainConfig


@pytest.mark.parametrize(
    ("config", "name", "text", "value"),
    [
        (TrainConfig, "steps", "40", 40),
        (TrainConfig, "learning_rate", "2e-6", 2e-6),
        (TrainConfig, "hflip", "False", False),
        (TrainConfig, "hflip", "true", True),
        (TrainConfig, "crop_ratio", "none", None),
        (TrainConfig, "crop_ratio", "0.75,1.5", (0.75, 1.5)),
        (TrainConfig, "crop_area", "(0.5, 1)", (0.5, 1)),
        (TrainConfig, "batching", "pairs", "pairs"),
        (TrainConfig, "model", "7", "7"),
        (TrainConfig, "name", "none", "none"),
        (TrainConfig, "log_with", "none", None),
        (FinetuneConfig, "method", "ddpo", "ddpo"),
        (FinetuneConfig, "negative_prompt", "blurry, 7", "blurry, 7"),
        (FinetuneConfig, "negative_prompt", "none", None),
        (FinetuneConfig, "height", "64", 64),
    ],
)
def test_settings_are_read_as_their_fields_say(
    config: type[Any], name: str, text: str, value: object
) -> None:
    found = read_setting(config, name, text)
    assert found == value
    assert type(found) is type(value)
