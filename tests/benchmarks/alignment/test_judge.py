"""A tiny model as a judge: what it says is what it says when asked one question at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_vlm import save_qwen
from PIL import Image

from stablepref.benchmarks.alignment.judge import NO, YES, Question, VQAJudge
from stablepref.models.vqa.build import load_vqa
from stablepref.models.vqa.forms import form_of
from stablepref.models.vqa.scorer import VQAScorer

QUESTIONS = (
    Question("Is there a red circle?", (YES, NO)),
    Question("How many stars?", (("two", "2", " 2"), ("three", "3"), ("four",)), "whole"),
    Question("Is it blue? Answer in one word.", (YES,), "first-each"),
    Question("Which?", (("a red circle",), ("a circle",)), "mean"),
)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> VQAScorer:
    pytest.importorskip("transformers", minversion="5.0")
    folder = save_qwen(tmp_path_factory.mktemp("judge"))
    return load_vqa(str(folder), form_of("geneval2"), name="vqa:tiny").float()


@pytest.fixture
def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_questions_together_and_one_by_one(scorer: VQAScorer, picture: Image.Image) -> None:
    judge = VQAJudge(scorer)
    together = judge(picture, QUESTIONS)
    assert [len(one) for one in together] == [2, 3, 1, 2]
    for question, found in zip(QUESTIONS, together, strict=True):
        (alone,) = judge(picture, [question])
        assert found == pytest.approx(alone, rel=1e-4)
        assert all(0 <= value <= 4 for value in found)
    # Every option by itself, by the scorer's own arithmetic.
    with torch.no_grad():
        features = scorer.encode_inputs([scorer.preprocess.exact(picture)])
        asked = scorer.encode_questions([QUESTIONS[1].text])
        alone = [
            scorer.answer(features, asked, [scorer.answers(spellings, "whole")]).item()
            for spellings in QUESTIONS[1].options
        ]
    assert together[1] == pytest.approx(alone, rel=1e-4)


def test_fewer_questions_are_asked_where_memory_runs_out(
    scorer: VQAScorer, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = VQAJudge(scorer)(picture, QUESTIONS)
    real, sizes = scorer.weigh, []

    def small(features: Any, questions: Any, options: Any) -> Any:  # noqa: ANN401
        sizes.append(len(options))
        if len(options) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(features, questions, options)

    monkeypatch.setattr(scorer, "weigh", small)
    found = VQAJudge(scorer)(picture, QUESTIONS)
    assert sizes == [4, 2, 2]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    monkeypatch.setattr(scorer, "weigh", lambda *_: small(None, None, [0] * 3))
    with pytest.raises(torch.OutOfMemoryError):  # one question alone
        VQAJudge(scorer)(picture, QUESTIONS)


def test_settings_tell_judges_apart(scorer: VQAScorer) -> None:
    settings = VQAJudge(scorer).settings()
    assert settings["processed"] is True
    assert settings["dtype"] == "float32"
    assert settings["weights"]
