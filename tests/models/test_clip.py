"""The dual-tower scorer: units, tokens, precision, configuration."""

import copy
import math
import warnings

import open_clip
import pytest
import torch
from helpers.tiny import tiny_clip
from open_clip.model import CLIP

from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess


@pytest.fixture(scope="module")
def scorer() -> CLIPScorer:
    return tiny_clip()


def test_encoders_give_unit_vectors_and_scores_are_scaled_cosines(scorer: CLIPScorer) -> None:
    pixels = torch.rand(3, 3, 64, 64)
    prompts = ["a cat", "a dog", "an owl"]
    images, texts = scorer.encode_images(pixels), scorer.encode_prompts(prompts)
    for features in (images, texts):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))
    cosine = torch.nn.functional.cosine_similarity(images, texts)
    torch.testing.assert_close(scorer(pixels, prompts), scorer.logit_scale * cosine)


def test_agrees_with_open_clip_itself(scorer: CLIPScorer) -> None:
    model = CLIP(**scorer.backbone).eval()
    model.load_state_dict(scorer.model.state_dict())
    inputs = torch.randn(2, 3, 64, 64)
    tokens = open_clip.tokenize(["a cat", "a dog"])
    with torch.no_grad():
        images, texts, scale = model(inputs, tokens)
        expected = scale * (images @ texts.T)
        ours = scorer.match(scorer.encode_inputs(inputs), scorer.encode_prompts(["a cat", "a dog"]))
    torch.testing.assert_close(ours, expected.diagonal())


@pytest.mark.parametrize(
    "prompt", ["a cat", "", "Ünïcode ÇA  va?", "x " * 300, "it's 1,234 o'clock"]
)
def test_tokens_equal_open_clips(scorer: CLIPScorer, prompt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(scorer.tokenize([prompt]), open_clip.tokenize([prompt]))


def test_long_prompts_keep_the_end_token_and_are_told_once() -> None:
    scorer = tiny_clip()
    long = " ".join(["cat"] * 100)
    with pytest.warns(UserWarning, match="77 tokens and this prompt has 102"):
        tokens = scorer.tokenize(["a cat", long])
    assert tokens[1, 76] == scorer.tokenizer.eot_token_id
    assert (tokens[1, :76] != scorer.tokenizer.eot_token_id).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.tokenize([long])
    within = " ".join(["cat"] * 75)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_clip().tokenize([within])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_logit_scale_stays_exact_in_half_precision(dtype: torch.dtype) -> None:
    scorer = tiny_clip()
    with torch.no_grad():
        scorer.model.logit_scale.fill_(math.log(100))
    low = copy.deepcopy(scorer).to(dtype)
    assert low.logit_scale.item() == pytest.approx(100, rel=1e-6)
    assert low.dtype == dtype
    assert low.model.logit_scale.requires_grad
    back = low.to(torch.float32)
    assert back.logit_scale.item() == pytest.approx(100, rel=1e-6)


def test_autocast_does_not_touch_the_score(scorer: CLIPScorer) -> None:
    features = torch.nn.functional.normalize(torch.randn(4, scorer.backbone["embed_dim"]), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = scorer.match(features, features)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, scorer.logit_scale.expand(4))


def test_quick_gelu_is_the_models_own() -> None:
    plain, quick = tiny_clip(), tiny_clip(quick_gelu=True)
    pixels = torch.rand(1, 3, 64, 64)
    assert (plain.encode_images(pixels) - quick.encode_images(pixels)).abs().max() > 1e-4


def test_a_vocabulary_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="49408 tokens, the text tower 100"):
        CLIPScorer(
            {
                "embed_dim": 32,
                "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                "text_cfg": {"vocab_size": 100, "width": 64, "heads": 1, "layers": 1},
            },
            preprocess=Preprocess("clip", 32),
            name="x",
            preference_scale=None,
        )
