"""HPS v3 from its official files, and from others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.tiny_hps_v3 import entry, official_scorer, record
from safetensors.torch import load_file, save_file
from torch import Tensor

import stablepref
from stablepref.benchmarks.parity import hps_v3
from stablepref.models.chat import ChatText
from stablepref.models.recognise import entry_of_file
from stablepref.models.registry import SCORERS
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


RECORD = record("tiny")
EXPECTED = torch.tensor(RECORD["scores"])
PROMPTS = list(hps_v3.PROMPTS)
PICTURES = [hps_v3.picture(*shape) for shape in hps_v3.PICTURES]
TOLERANCE = 1e-4


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest |ours - official| / max(1, |official|)."""
    assert found.shape == expected.shape
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return hps_v3.write_official_files(hps_v3.TINY, tmp_path)


def test_key_layout_of_later_transformers(files: list[Path]) -> None:
    state = load_file(files[0])
    late = {
        ("model." + key)
        if key.startswith("visual.")
        else key.replace("model.", "model.language_model.", 1): value
        for key, value in state.items()
    }
    save_file(late, files[0])
    found = entry().build(files).score(PICTURES[:1], "a red fox")
    assert deviation(found, EXPECTED[0, :1, 0]) < TOLERANCE


def test_wrapped_checkpoint_in_bfloat16(files: list[Path]) -> None:
    """The form of a training's own checkpoint; the head stays in float32."""
    state = {
        key: value if key.startswith("rm_head") else value.bfloat16()
        for key, value in load_file(files[0]).items()
    }
    path = files[0].with_suffix(".pth")
    torch.save({"model": state}, path)
    scorer = entry().build([path, *files[1:]])
    assert scorer.dtype == torch.bfloat16
    assert torch.equal(scorer.head[0].weight, state["rm_head.0.weight"])


def changed(files: list[Path], change: Callable[[dict[str, Tensor]], object]) -> list[Path]:
    state = load_file(files[0])
    change(state)
    save_file(state, files[0])
    return files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("rm_head.5.bias"), "missing: 5.bias"),
        (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), "missing: language_model.layers.1"),
        (lambda s: s.update({"model.extra": torch.zeros(1)}), "unexpected: language_model.extra"),
        (lambda s: s.update({"model.visual.x": torch.zeros(1)}), "keys of two layouts"),
        (
            lambda s: s.update({"rm_head.5.weight": torch.zeros(1, 16)}),
            r"5.weight is \(1, 16\), expected \(2, 16\)",
        ),
    ],
)
def test_other_weights_are_refused(
    files: list[Path], change: Callable[[dict[str, Tensor]], object], says: str
) -> None:
    with pytest.raises(WeightsError, match=says):
        entry().build(changed(files, change))


def test_another_instruction_is_refused(files: list[Path]) -> None:
    files[1].write_text(files[1].read_text().replace("how good", "how bad"))
    with pytest.raises(WeightsError, match=r"SHA-256 .* the package hpsv3 1\.0\.0"):
        entry().build(files)


def test_a_file_without_the_instruction_is_refused(files: list[Path]) -> None:
    """The official file raises an error when it is run here, which it never is."""
    assert "raise RuntimeError" in files[1].read_text()
    files[1].write_text("INSTRUCTION = 1\n")
    with pytest.raises(WeightsError, match="assigns 0 strings to 'INSTRUCTION'"):
        entry().build(files)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (2, "{}", "the tokenizer cannot be used"),
        (3, "[]", 'no text under "chat_template"'),
        (3, json.dumps({"chat_template": "{% if %}"}), "the chat template cannot be used"),
    ],
)
def test_other_texts_are_refused(files: list[Path], file: int, text: str, says: str) -> None:
    files[file].write_text(text)
    with pytest.raises(WeightsError, match=says):
        ChatText.read(files[2], files[3])


def test_an_official_file_is_known_by_its_name(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the other files beside it, nothing is downloaded."""
    monkeypatch.setitem(SCORERS.builtin, "hps-v3", entry())
    known = entry_of_file(files[0])
    assert known is not None
    assert known.name == "hps-v3"
    scorer = stablepref.load(files[0], like="hps-v3", dtype="float32")
    assert deviation(scorer.score(PICTURES[:1], "a red fox"), EXPECTED[0, :1, 0]) < TOLERANCE


@pytest.mark.slow
def test_full_width_with_two_layers() -> None:
    expected = torch.tensor(record("two")["scores"])
    scorer = official_scorer(hps_v3.TWO_LAYERS)
    found = scorer.score_matrix(PICTURES, PROMPTS, batch_size=2)
    assert expected[..., 0].std() > 0.1
    assert deviation(found, expected[..., 0]) < TOLERANCE
