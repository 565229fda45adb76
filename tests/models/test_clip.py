"""The dual-tower scorer: units, tokens, precision, and towers that equal open_clip's."""

import copy
import math
import warnings

import open_clip
import pytest
import torch
from helpers.tiny import tiny_clip
from open_clip.model import CLIP
from torch.nn import functional

from stablepref.models.clip import CLIPScorer, encode_pixels, encode_tokens
from stablepref.preprocess.preprocess import Preprocess

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"width": 64, "heads": 2, "layers": 3}
NO_TEXT = {**TEXT, "vocab_size": 2}
"""Where only images are encoded: nearly all of a text tower's weights are its tokens'."""
SENTENCE = "a red fox asleep under the old wooden bridge painted in oil on canvas at dusk "


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


def tower(**text: object) -> CLIP:
    torch.manual_seed(0)
    return CLIP(embed_dim=32, vision_cfg=VISION, text_cfg={**TEXT, **text}).double().eval()


def tokens(count: int, *, longest: int = 200) -> torch.Tensor:
    """Prompts of 1 to `longest` words, in no order of length."""
    words = (SENTENCE * 20).split()
    prompts = [" ".join(words[: 1 + 77 * i % longest]) for i in range(count)]
    found: torch.Tensor = open_clip.tokenize(prompts)
    return found


@pytest.fixture
def four_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many prompts as are encoded at once here."""
    monkeypatch.setattr("stablepref.models.clip.TOGETHER", 4)


@pytest.mark.usefixtures("four_together")
@pytest.mark.parametrize("count", [1, 4, 5, 11])
@pytest.mark.parametrize("longest", [12, 200])
def test_features_are_those_of_the_padded_prompts(count: int, longest: int) -> None:
    model, ids = tower(), tokens(count, longest=longest)
    with torch.no_grad():
        torch.testing.assert_close(
            encode_tokens(model, ids), model.encode_text(ids), rtol=1e-9, atol=1e-12
        )


@pytest.mark.usefixtures("four_together")
def test_weights_get_the_gradient_of_the_padded_prompts() -> None:
    model, ids = tower(), tokens(6)
    gradients = []
    for features in (encode_tokens(model, ids), model.encode_text(ids)):
        wanted = [p for n, p in model.named_parameters() if not n.startswith(("visual", "logit"))]
        gradients.append(torch.autograd.grad(features.pow(2).sum(), wanted))
    for ours, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, padded, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_a_tower_that_needs_the_padding_gets_it(text: dict[str, object]) -> None:
    model, ids = tower(**text), tokens(4)
    with torch.no_grad():
        assert torch.equal(encode_tokens(model, ids), model.encode_text(ids))


def test_the_padding_is_left_out() -> None:
    model, ids = tower(), tokens(3, longest=12)
    seen = []
    blocks = model.transformer.resblocks
    handle = blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    encode_tokens(model, ids)
    handle.remove()
    assert seen == [int(ids.argmax(dim=1).max()) + 1]
    assert seen[0] < ids.shape[1]


def error(reduced: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference of unit vectors."""
    a, b = (functional.normalize(features.double(), dim=-1) for features in (reduced, exact))
    return (a - b).square().mean().sqrt().item()


def spread_weights(model: CLIP) -> CLIP:
    """Norms and biases that matter, as in a trained model."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prompts_in_half_precision_are_nearer_than_open_clips(dtype: torch.dtype) -> None:
    exact = spread_weights(tower(layers=12)).double()
    half = copy.deepcopy(exact).to(dtype)
    exact = copy.deepcopy(half).double()  # equal weights: only the arithmetic differs
    ids = tokens(12, longest=12)
    with torch.no_grad():
        reference = exact.encode_text(ids)
        ours, plain = encode_tokens(half, ids), half.encode_text(ids)
    assert ours.dtype == torch.float32
    assert error(ours, reference) < 0.6 * error(plain, reference)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"no_ln_pre": True},
        {"ls_init_value": 0.9},
    ],
)
def test_images_in_half_precision_are_nearer_than_open_clips(
    dtype: torch.dtype, vision: dict[str, object]
) -> None:
    torch.manual_seed(0)
    sizes = {**VISION, "layers": 12, **vision}
    model = CLIP(embed_dim=32, vision_cfg=sizes, text_cfg=NO_TEXT).eval()
    half = spread_weights(model).to(dtype)
    exact = copy.deepcopy(half).double()
    inputs = torch.randn(40, 3, 32, 32).to(dtype)
    with torch.no_grad():
        reference = exact.visual(inputs.double())
        ours, plain = encode_pixels(half.visual, inputs.float()), half.visual(inputs)
    assert error(ours, reference) < 0.6 * error(plain, reference)


def test_a_tower_that_pools_by_attention_is_run_as_it_is() -> None:
    torch.manual_seed(0)
    sizes = {**VISION, "attentional_pool": True, "attn_pooler_heads": 2}
    model = CLIP(embed_dim=32, vision_cfg=sizes, text_cfg=NO_TEXT).eval().bfloat16()
    inputs = torch.randn(2, 3, 32, 32).bfloat16()
    with torch.no_grad():
        assert torch.equal(encode_pixels(model.visual, inputs), model.visual(inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_in_full_precision_are_open_clips(dtype: torch.dtype) -> None:
    model = tower().to(dtype)
    inputs = torch.randn(3, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(encode_pixels(model.visual, inputs), model.visual(inputs))


def test_half_precision_has_the_gradient_of_float32() -> None:
    half = spread_weights(tower()).bfloat16()
    exact = copy.deepcopy(half).double()
    gradients = []
    for model in (half, exact):
        inputs = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32).requires_grad_()
        features = functional.normalize(encode_pixels(model.visual, inputs).double(), dim=-1)
        (features[:, :7].sum()).backward()
        assert inputs.grad is not None
        gradients.append(inputs.grad.flatten())
    assert functional.cosine_similarity(*gradients, dim=0) > 0.99
