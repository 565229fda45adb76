"""Scores of the zoo's models against those recorded from their official code.

`benchmarks/parity` made tests/parity/*.json; see docs/parity.md. Both sides make equal weights, in
the official file format, from the names of the tensors alone.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.places import RECORDS
from torch import Tensor, nn
from torch.nn import functional

from stablepref.benchmarks.parity.cases import CASES
from stablepref.benchmarks.parity.compare import TOLERANCE, Comparison, load_comparison
from stablepref.benchmarks.parity.inputs import made_up_vocabulary
from stablepref.models.bert import WordPieceTokenizer
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scoring.prompt_cache import PromptCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image

    from stablepref.scorer import Scorer

END = 49407  # the id of CLIP's end token; what follows it has no effect
FULL_DEPTH = ("hps-v2", "pickscore-v1", "imagereward-v1", "clip-vit-l-14", "blip-large")
QUICK_GELU = ("clip-vit-l-14", "hps-v1", "laion-aesthetic-v1", "laion-aesthetic-v2")
SOME = [4, 8, 12]  # a wide, a tall and a small picture
# Another model here has their code as well, with other weights; clip-vit-h-14 is open_clip itself.
SAME_CODE = ("hps-v2.1", "hps-v1", "clip-vit-h-14", "laion-aesthetic-v1")
OTHER_PROTOCOL = {"hps": "clip", "clip": "hps", "imagereward": "hps", "pickscore": "hps"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in SAME_CODE else name
        for name in sorted(CASES)
    ],
)
def two_blocks(request: pytest.FixtureRequest, shared_data: Path) -> Comparison:
    images = shared_data / "hpdv2_gallery" / "images"
    return load_comparison(RECORDS / f"{request.param}-two.json", images)


def agrees(scores: Tensor, expected: Tensor) -> bool:
    """Whether all agree within 1e-4 x max(1, |reference|), in the model's unit."""
    assert scores.shape == expected.shape
    assert scores.dtype == torch.float32
    return bool(((scores - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1)).all())


def test_scores_differ_by_image_and_prompt(two_blocks: Comparison) -> None:
    """Or agreement would mean nothing."""
    assert two_blocks.expected.std(dim=0).min() > 100 * TOLERANCE
    if not two_blocks.scorer.name.startswith("laion"):
        assert two_blocks.expected.std(dim=1).min() > 100 * TOLERANCE


def test_every_picture_with_every_prompt(two_blocks: Comparison) -> None:
    scores = quietly(two_blocks.scorer.score_matrix, two_blocks.pictures, two_blocks.prompts)
    assert agrees(scores, two_blocks.expected)


def test_score_in_uneven_batches_with_a_prompt_each(two_blocks: Comparison) -> None:
    prompts = [two_blocks.prompts[i % 4] for i in SOME]
    scores = quietly(two_blocks.scorer.score, some(two_blocks.pictures), prompts, batch_size=2)
    assert agrees(scores, two_blocks.expected[SOME, [i % 4 for i in SOME]])


def test_score_one_by_one(two_blocks: Comparison) -> None:
    for i in SOME[:2]:
        score = quietly(two_blocks.scorer.score, two_blocks.pictures[i], two_blocks.prompts[0])
        assert agrees(score, two_blocks.expected[i, :1])


def test_forward_batched_and_single(two_blocks: Comparison) -> None:
    """On pixels of the model's size, which no protocol resamples: see docs/parity.md."""
    scorer = two_blocks.scorer
    if scorer.protocol == "hps":
        pytest.skip("it resamples tensors itself: test_forward_on_raw_pixels")
    pixels = torch.stack([model_sized_pixels(scorer, p) for p in some(two_blocks.pictures)])
    prompts = [two_blocks.prompts[i % 4] for i in SOME]
    expected = two_blocks.expected[SOME, [i % 4 for i in SOME]]
    assert agrees(quietly(scorer.forward, pixels, prompts), expected)
    single = quietly(scorer.forward, pixels[:1], prompts[:1])
    assert agrees(single, expected[:1])


def test_forward_on_raw_pixels(two_blocks: Comparison) -> None:
    """Where the official preprocessing works on tensors, any picture agrees."""
    scorer = two_blocks.scorer
    if scorer.protocol != "hps":
        pytest.skip("Pillow rounds to 8 bits, which has no gradient: docs/parity.md has the gap")
    pixels = [raw_pixels(picture) for picture in some(two_blocks.pictures)]
    expected = two_blocks.expected[SOME, 0]
    prompts = two_blocks.prompts[:1]
    with torch.no_grad():
        features = scorer.encode_prompts(prompts).expand(len(SOME), -1)
        assert agrees(scorer.match(scorer.encode_images(pixels), features), expected)
    single = quietly(scorer.forward, pixels[0][None], prompts)
    assert agrees(single, expected[:1])


def test_wrong_protocol_is_noticed(two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = two_blocks.scorer
    other = Preprocess(OTHER_PROTOCOL[scorer.protocol], scorer.preprocess.size)
    monkeypatch.setitem(scorer._modules, "preprocess", other)
    assert not agrees(mutant_scores(two_blocks, monkeypatch), two_blocks.expected[SOME[:2], 0])


def test_a_crop_that_rounds_the_other_way_is_noticed(
    two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clip` in the place of `pickscore`: one pixel apart, on some of the shapes."""
    scorer = two_blocks.scorer
    if scorer.protocol != "pickscore":
        pytest.skip("the other protocols have no such neighbour")
    other = Preprocess("clip", scorer.preprocess.size)
    apart = [
        i
        for i, picture in enumerate(two_blocks.pictures)
        if not torch.equal(other.exact(picture), scorer.preprocess.exact(picture))
    ]
    assert apart
    pictures = [two_blocks.pictures[i] for i in apart]
    expected = two_blocks.expected[apart, 0]
    assert agrees(scorer.score(pictures, two_blocks.prompts[0]), expected)
    monkeypatch.setitem(scorer._modules, "preprocess", other)
    mutant = scorer.score(pictures, two_blocks.prompts[0])
    assert not any(agrees(mutant[[i]], expected[[i]]) for i in range(len(apart)))


def test_missing_pixel_normalisation_is_noticed(
    two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = two_blocks.scorer
    plain = Preprocess(scorer.protocol, scorer.preprocess.size, mean=(0, 0, 0), std=(1, 1, 1))
    monkeypatch.setitem(scorer._modules, "preprocess", plain)
    assert not agrees(mutant_scores(two_blocks, monkeypatch), two_blocks.expected[SOME[:2], 0])


def test_missing_feature_normalisation_is_noticed(
    two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unit vectors in the dual towers and the aesthetic heads, the reward's own in ImageReward."""
    scorer = two_blocks.scorer
    if scorer.name == "imagereward-v1":
        monkeypatch.setattr("stablepref.models.blip.REWARD_MEAN", 0.0)
        monkeypatch.setattr("stablepref.models.blip.REWARD_STD", 1.0)
    else:
        monkeypatch.setattr(functional, "normalize", lambda x, **_: x)
    assert not agrees(mutant_scores(two_blocks, monkeypatch), two_blocks.expected[SOME[:2], 0])


def test_wrong_activation_is_noticed(
    two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact GELU in the place of QuickGELU, and the other way round."""
    scorer = two_blocks.scorer
    quick = scorer.name in QUICK_GELU
    swapped = 0
    for module in scorer.modules():
        for label, child in module.named_children():
            if type(child).__name__ == ("QuickGELU" if quick else "GELU"):
                monkeypatch.setitem(module._modules, label, nn.GELU() if quick else QuickGELU())
                swapped += 1
    assert swapped
    assert not agrees(mutant_scores(two_blocks, monkeypatch), two_blocks.expected[SOME[:2], 0])


def test_ignored_padding_mask_is_noticed(
    two_blocks: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer: Any = two_blocks.scorer
    if not hasattr(scorer, "text"):
        pytest.skip("only BERT has a padding mask")
    tokenizer = scorer.tokenizer
    monkeypatch.setattr(
        scorer,
        "tokenizer",
        lambda prompts: tokenizer(prompts).index_fill(1, torch.tensor([1]), 1),
    )
    assert not agrees(mutant_scores(two_blocks, monkeypatch), two_blocks.expected[SOME[:2], 0])


def test_bert_tokens() -> None:
    record = json.loads((RECORDS / "tokens-bert.json").read_text(encoding="utf-8"))
    tokenizer = WordPieceTokenizer(made_up_vocabulary(), max_length=35)
    packed = quietly(tokenizer, record["prompts"])
    for prompt, row, expected in zip(record["prompts"], packed, record["ids"], strict=True):
        assert row[0].tolist() == expected, prompt
        assert row[1].tolist() == [int(i != 0) for i in expected], prompt


@pytest.mark.parametrize(
    ("protocol", "tokenizer"),
    [("clip", "openai"), ("hps", "openai"), ("pickscore", "transformers")],
)
def test_clip_tokens(protocol: str, tokenizer: str) -> None:
    record = json.loads((RECORDS / f"tokens-{tokenizer}.json").read_text(encoding="utf-8"))
    backbone = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
        "text_cfg": {"vocab_size": END + 1, "width": 8, "heads": 1, "layers": 1},
    }
    scorer = CLIPScorer(
        backbone, preprocess=Preprocess(protocol, 28), name="tiny", preference_scale=None
    )
    rows = quietly(scorer.tokenize, record["prompts"]).tolist()
    for prompt, row, expected in zip(record["prompts"], rows, record["ids"], strict=True):
        assert up_to_end(row) == up_to_end(expected), prompt


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_DEPTH)
def test_full_depth(name: str, shared_data: Path) -> None:
    images = shared_data / "hpdv2_gallery" / "images"
    full = load_comparison(RECORDS / f"{name}-full.json", images)
    scores = quietly(full.scorer.score_matrix, full.pictures, full.prompts)
    assert agrees(scores, full.expected)


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """The product of x and the sigmoid of 1.702 x."""
        return x * torch.sigmoid(1.702 * x)


def some(pictures: list[Image]) -> list[Image]:
    """A wide, a tall and a small picture."""
    return [pictures[i] for i in SOME]


def mutant_scores(case: Comparison, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Scores of some pictures under the first prompt, which no model cuts."""
    # A mutant has the weights of the unchanged model, whose remembered prompts are not its own.
    monkeypatch.setattr(case.scorer, "_prompt_cache", PromptCache())
    return case.scorer.score(some(case.pictures)[:2], case.prompts[0])


def quietly(function: Callable[..., Tensor], *args: object, **settings: object) -> Tensor:
    """Call without gradients, and without the warning that the long prompt is cut."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return function(*args, **settings)


def up_to_end(ids: list[int]) -> list[int]:
    """Token ids without the padding."""
    return ids[: ids.index(END) + 1]


def raw_pixels(picture: Image) -> Tensor:
    """Float pixels `(3, H, W)` in [0, 1] of a picture."""
    size = (picture.height, picture.width, 3)
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(size)
    return values.permute(2, 0, 1) / 255


def model_sized_pixels(scorer: Scorer, picture: Image) -> Tensor:
    """What the official preprocessing shows the model, before the mean and deviation of pixels."""
    preprocess = scorer.preprocess
    return preprocess.exact(picture) * preprocess.std + preprocess.mean
