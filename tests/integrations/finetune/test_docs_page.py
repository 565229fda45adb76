"""The Python of the page on fine-tuning runs, as a reader would type it."""

from pathlib import Path

import pytest
from helpers.docs import python_blocks
from helpers.places import DOCS

from stablepref.integrations.finetune.config import FinetuneConfig

PAGE = (DOCS / "finetuning.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = list(python_blocks(PAGE))
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "finetuning.md", "exec"), names)
    for step in (1, 2, 3):
        assert (tmp_path / "run" / "samples" / f"step-{step:08d}.png").is_file()
    assert (tmp_path / "run" / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_defaults_are_those_of_the_code() -> None:
    config = FinetuneConfig()
    assert config.gradient_checkpointing
    assert f"`clip_range` of {config.clip_range:.4f}" in PAGE
    assert config.pictures_per_sample == 2
    assert config.sample_every == 20
