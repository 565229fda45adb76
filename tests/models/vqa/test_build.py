"""Models that can be asked, and those that are refused: when they are loaded, and with a reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stablepref
from stablepref.models.vqa import build
from stablepref.models.vqa.build import check_parts, load_vqa
from stablepref.models.vqa.forms import form_of
from stablepref.models.vqa.scorer import VQAScorer
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import UnavailableError

Load = Callable[..., VQAScorer]


def changed(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def load(folder: Path, form: str = "clean") -> VQAScorer:
    return load_vqa(str(folder), form_of(form), name=f"vqa:{folder.name}")


def test_another_kind_is_compared_with_its_own_forward_when_loaded(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, pictures: list[Image.Image]
) -> None:
    folder = folders["llava"]
    seen: list[str] = []
    real = check_parts

    def noted(scorer: VQAScorer) -> None:
        seen.append(scorer.name)
        real(scorer)

    monkeypatch.setattr(build, "check_parts", noted)
    scorer = load(folder).float()
    assert seen == ["vqa:llava"]
    # And its numbers are those of its own forward.
    conversation = scorer.conversation
    text = conversation.text(form_of().question.replace("{}", "a star"))
    batch = conversation.processor(text=[text], images=[pictures[2]], return_tensors="pt")
    with torch.no_grad():
        logits = scorer.model(**batch).logits[0, -1]
    expected = logits.softmax(-1)[conversation.answers(["Yes"])[0][0]]
    torch.testing.assert_close(
        scorer.score(pictures[2], "a star")[0], expected, rtol=2e-4, atol=0.0
    )


def test_a_model_whose_parts_give_other_numbers_is_refused(loaded: Load) -> None:
    scorer = loaded("qwen2.5")
    tower: Any = scorer.model.model.visual
    real = tower.forward
    calls: list[int] = []

    def other_after_the_first(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        out = real(*args, **kwargs)
        calls.append(1)
        if len(calls) > 1:
            out.pooler_output = -out.pooler_output
        return out

    tower.forward = other_after_the_first
    try:
        with pytest.raises(ValueError, match="gives other numbers than its image features"):
            check_parts(scorer)
    finally:
        del tower.forward
    check_parts(scorer)


def test_no_chat_template(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(folders["qwen2.5"], tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load(folder)


def test_a_form_for_another_processor(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="expected that of a Qwen-VL model"):
        load(folders["idefics3"], "t2v-3.1")


@pytest.mark.usefixtures("folders")  # which want transformers 5
def test_a_folder_without_a_model(tmp_path: Path) -> None:
    tmp_path.joinpath("config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="vqa:"):
        load(tmp_path)


def test_missing_weights_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(folders["qwen2.5"], tmp_path / "half")
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights[next(name for name in weights if "layers.1.mlp" in name)]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 weights"):
        load(folder)


@pytest.mark.usefixtures("folders")
def test_a_repository_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(build, "require_network", no_network)
    with pytest.raises(UnavailableError, match="cannot load vqa:nobody/nothing"):
        stablepref.load("vqa:nobody/nothing", device="cpu")


def test_transformers_before_5(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers  # noqa: PLC0415

    monkeypatch.setattr(transformers, "__version__", "4.57.6")
    with pytest.raises(ImportError, match=r"needs transformers 5 or later, 4\.57\.6"):
        stablepref.load("vqa:nobody/other", device="cpu")
