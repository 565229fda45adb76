"""ImageReward and BLIP on small models; tests/test_parity.py has the official code's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from helpers.small_blip import VOCABULARY, small_scorer
from torch import Tensor, nn

import stablepref
from stablepref.benchmarks.parity import layouts
from stablepref.benchmarks.parity.inputs import made_up_vocabulary
from stablepref.models.bert import Attention, BertEncoder, write_vocabulary
from stablepref.models.blip import (
    REWARD_MEAN,
    REWARD_STD,
    BLIPScorer,
    ImageRewardScorer,
    blip_from,
    imagereward_from,
    vision_tower,
)
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.scorer import Scorer

PROMPTS = ["a red fox", "two owls in a very tall tree", "a red fox"]


@pytest.fixture(params=[ImageRewardScorer, BLIPScorer])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return small_scorer(request.param)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 40, 64, generator=torch.Generator().manual_seed(1))


def test_batch_equals_singles(scorer: Scorer, pixels: Tensor) -> None:
    together = scorer(pixels, PROMPTS)
    singles = [scorer(pixels[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-5, atol=1e-6)
    assert together.shape == (3,)
    assert together.std() > 1e-3


def test_prompts_and_images_both_matter(scorer: Scorer, pixels: Tensor) -> None:
    same_image = scorer(pixels[:1].expand(3, -1, -1, -1), PROMPTS)
    assert same_image[0] == same_image[2]
    assert (same_image[0] - same_image[1]).abs() > 1e-3
    assert (scorer(pixels[:2], ["a", "a"])).diff().abs() > 1e-4


def test_gradient_reaches_pixels_and_every_parameter(scorer: Scorer, pixels: Tensor) -> None:
    pixels.requires_grad_()
    scorer(pixels, PROMPTS).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
    assert [name for name, p in scorer.named_parameters() if p.grad is None] == []


def test_gradient_of_pixels_against_differences() -> None:
    scorer = small_scorer(ImageRewardScorer).double()
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(1, 3, 24, 24, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    direction = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    pixels.requires_grad_()
    (gradient,) = torch.autograd.grad(scorer(pixels, ["a fox"]).sum(), pixels)
    step = 1e-5
    with torch.no_grad():
        up, down = (scorer(pixels + s * step * direction, ["a fox"]) for s in (1, -1))
    torch.testing.assert_close((up - down) / (2 * step), (gradient * direction).sum()[None])


def test_same_scores_after_save_and_load(scorer: Scorer, pixels: Tensor, tmp_path: Path) -> None:
    scorer.save_pretrained(tmp_path / "saved")
    again = stablepref.load(tmp_path / "saved", device="cpu", dtype=torch.float32)
    assert type(again) is type(scorer)
    assert (again.name, again.unit, again.protocol) == (scorer.name, scorer.unit, scorer.protocol)
    for key, value in scorer.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    with torch.no_grad():
        torch.testing.assert_close(again(pixels, PROMPTS), scorer(pixels, PROMPTS))


def test_half_precision_weights_give_float32_scores(scorer: Scorer, pixels: Tensor) -> None:
    with torch.no_grad():
        exact = scorer(pixels, PROMPTS)
        scores = scorer.to(torch.bfloat16)(pixels, PROMPTS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact, rtol=0.1, atol=0.05)


def test_head_stays_float32_under_autocast() -> None:
    scorer = small_scorer(ImageRewardScorer)
    assert isinstance(scorer, ImageRewardScorer)
    features = torch.randn(4, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = scorer.head(features)
    assert torch.equal(inside, scorer.head(features))


def test_imagereward_preference_undoes_the_normalisation() -> None:
    scorer = small_scorer(ImageRewardScorer)
    assert scorer.preference_scale is not None
    raw = torch.tensor([1.7, -0.4])
    scores = (raw - REWARD_MEAN) / REWARD_STD
    torch.testing.assert_close(scorer.preference_scale * scores.diff(), raw.diff())


def test_imagereward_head_by_hand() -> None:
    """A head of zeros with a last bias of 2: (2 - 0.16717) / 1.03334 = 1.77369."""
    scorer = small_scorer(ImageRewardScorer)
    assert isinstance(scorer, ImageRewardScorer)
    with torch.no_grad():
        for parameter in scorer.head.parameters():
            parameter.zero_()
        next(reversed(list(scorer.head.parameters()))).fill_(2)
        score = scorer(torch.rand(1, 3, 32, 32), ["a"])
    assert score.item() == pytest.approx(1.773693, abs=1e-5)


def test_blip_gives_cosines_and_no_preference(pixels: Tensor) -> None:
    scorer = small_scorer(BLIPScorer)
    assert scorer.preference_scale is None
    assert scorer.unit == "cosine"
    features = scorer.encode_images(pixels)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(scorer.encode_prompts(["a b"]).norm(dim=-1), torch.ones(1))
    torch.testing.assert_close(scorer.match(features, features), torch.ones(3))


def test_attention_against_torch() -> None:
    torch.manual_seed(3)
    ours = Attention(128, 96)
    theirs = nn.MultiheadAttention(128, 2, kdim=96, vdim=96, batch_first=True)
    with torch.no_grad():
        for name in ("query", "key", "value"):
            layer = getattr(ours, name)
            layer.bias.normal_()
            getattr(theirs, f"{name[0]}_proj_weight").copy_(layer.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = torch.randn(2, 5, 128), torch.randn(2, 7, 96)
    visible = torch.arange(7) < torch.tensor([[7], [4]])
    expected, _ = theirs(x, context, context, key_padding_mask=~visible)
    torch.testing.assert_close(ours(x, context, visible[:, None, None]), expected)


def test_text_encoder_against_transformers() -> None:
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    config.intermediate_size = 512
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    theirs.embeddings.token_type_embeddings.weight.data.zero_()
    ours = BertEncoder(vocabulary_size=50, width=128, depth=2)
    with torch.no_grad():
        for module, twin in twins(ours, theirs):
            for parameter, copy in zip(module.parameters(), twin.parameters(), strict=True):
                copy.copy_(parameter.normal_(std=0.1))
    ids = torch.randint(0, 50, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [1]])).long()
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(torch.stack([ids, mask], 1)), expected)


def twins(ours: Any, theirs: Any) -> list[tuple[nn.Module, nn.Module]]:  # noqa: ANN401
    """Layers that hold the same weights in both."""
    embeddings = theirs.embeddings
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (ours.word_embeddings, embeddings.word_embeddings),
        (ours.position_embeddings, embeddings.position_embeddings),
        (ours.norm, embeddings.LayerNorm),
    ]
    for layer, twin in zip(ours.layers, theirs.encoder.layer, strict=True):
        attention = twin.attention
        pairs += [
            (layer.self_attention.query, attention.self.query),
            (layer.self_attention.key, attention.self.key),
            (layer.self_attention.value, attention.self.value),
            (layer.self_attention.out, attention.output.dense),
            (layer.self_norm, attention.output.LayerNorm),
            (layer.up, twin.intermediate.dense),
            (layer.down, twin.output.dense),
            (layer.norm, twin.output.LayerNorm),
        ]
    return pairs


@pytest.mark.parametrize("kind", ["imagereward", "blip"])
def test_sizes_are_read_off_the_file(kind: str, tmp_path: Path) -> None:
    write_vocabulary(made_up_vocabulary(), tmp_path / "vocab.txt")
    scorer = build(kind, tmp_path / "vocab.txt")
    expected = {"vision_width": 1024, "vision_depth": 3, "text_width": 768, "text_depth": 2}
    assert expected.items() <= scorer.config().items()


def test_vocabulary_of_another_size(tmp_path: Path) -> None:
    write_vocabulary(VOCABULARY, tmp_path / "vocab.txt")
    with pytest.raises(WeightsError, match=r"text.word_embeddings.weight is \(30524, 768\)"):
        build("imagereward", tmp_path / "vocab.txt")


def build(kind: str, vocabulary: Path) -> Scorer:
    """From an official layout without memory behind it."""
    shapes = (
        layouts.imagereward(vision_blocks=3, text_blocks=2)
        if kind == "imagereward"
        else layouts.blip(prefix="", vision_blocks=3, text_blocks=2)
    )
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    return (imagereward_from if kind == "imagereward" else blip_from)(state, vocabulary)


def test_width_of_other_heads() -> None:
    with pytest.raises(ValueError, match="vision width must be a multiple of 64, got 100"):
        vision_tower(100, 1)
    with pytest.raises(ValueError, match="text width must be a multiple of 64, got 100"):
        BertEncoder(vocabulary_size=10, width=100, depth=1)


@pytest.mark.network
def test_published_scores_of_imagereward(shared_data: Path) -> None:
    """The README of THUDM/ImageReward: four images, best to worst."""
    images = [shared_data / "imagereward" / "images" / f"{i}.webp" for i in range(1, 5)]
    prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect"
    published = [0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492]
    scores = stablepref.load("imagereward-v1", dtype=torch.float32).score(images, prompt)
    assert scores.tolist() == pytest.approx(published, abs=1e-3)
