"""LAION's aesthetic heads: the published weights' values, and the scorer around them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

import stablepref
from stablepref.models.aesthetic import AestheticScorer, LinearHead, MLPHead, with_head
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

# From the README beside the files.
V1 = [-2.45791, -0.13786, 1.89511, 3.58498, 5.09973, 6.47010, 7.78699, 9.04800, 10.22641, 11.30443]
V2 = [1.65548, 2.35927, 3.06982, 3.67245, 4.23801, 4.70102, 5.07305, 5.36537, 5.57666, 5.74676]
FILES = {
    "linear": ("sa_0_4_vit_l_14_linear.pth", V1),
    "mlp": ("sac+logos+ava1-l14-linearMSE.pth", V2),
}


def small_clip(embed_dim: int = 768, layers: int = 2) -> CLIPScorer:
    torch.manual_seed(0)
    backbone = {
        "embed_dim": embed_dim,
        "vision_cfg": {"image_size": 32, "layers": layers, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
        "quick_gelu": True,
    }
    return CLIPScorer(
        backbone, preprocess=Preprocess("clip", 32), name="small", preference_scale=None
    ).eval()


def head_state(kind: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    if kind == "mlp":
        return MLPHead(768).state_dict()
    return torch.nn.Linear(768, 1).state_dict()


@pytest.fixture(params=["linear", "mlp"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def scorer(kind: str) -> AestheticScorer:
    return with_head(small_clip(), head_state(kind))


def test_published_heads_on_published_embeddings(kind: str, shared_data: Path) -> None:
    folder = shared_data / "aesthetic"
    file, expected = FILES[kind]
    state = torch.load(folder / file, map_location="cpu", weights_only=True)
    scorer = with_head(small_clip(), state)
    files = [folder / "vit_l_14_embeddings" / f"rating{i}.npy" for i in range(10)]
    embeddings = torch.from_numpy(np.concatenate([np.load(file) for file in files]))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(10))  # as `match` takes them
    with torch.no_grad():
        scores = scorer.match(embeddings, scorer.encode_prompts([""] * 10))
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=0, atol=1e-4)


def test_names_and_unit(kind: str, scorer: AestheticScorer) -> None:
    assert scorer.name == {"linear": "laion-aesthetic-v1", "mlp": "laion-aesthetic-v2"}[kind]
    assert scorer.preference_scale is None
    assert scorer.unit == "aesthetic rating (about 1 to 10)"
    assert not scorer.training


def test_score_is_the_head_on_the_unit_embedding(kind: str, scorer: AestheticScorer) -> None:
    """Worked with numpy, from the image tower's raw output."""
    inputs = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        x = small_clip().model.visual(inputs).double().numpy()
        scores = scorer.match(scorer.encode_inputs(inputs), scorer.encode_prompts(["a"] * 3))
    x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
    state = {key: value.double().numpy() for key, value in head_state(kind).items()}
    for layer in [""] if kind == "linear" else [f"layers.{i}." for i in (0, 2, 4, 6, 7)]:
        x = x @ state[f"{layer}weight"].T + state[f"{layer}bias"]
    np.testing.assert_allclose(scores, x[:, 0], rtol=1e-5, atol=1e-6)


def test_prompt_has_no_effect(scorer: AestheticScorer) -> None:
    pixels = torch.rand(1, 3, 40, 50).expand(2, -1, -1, -1)
    first, second = scorer(pixels, ["a fox", "an owl"]).tolist()
    assert first == pytest.approx(second, abs=1e-6)
    assert scorer.encode_prompts(["a", "b"]).shape == (2, 0)


def test_gradient_reaches_pixels(scorer: AestheticScorer) -> None:
    pixels = torch.rand(2, 3, 40, 50, requires_grad=True)
    scorer(pixels, ["a", "b"]).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(p.grad is not None for p in scorer.parameters())


def test_same_scores_after_save_and_load(scorer: AestheticScorer, tmp_path: Path) -> None:
    pixels = torch.rand(2, 3, 40, 50)
    scorer.save_pretrained(tmp_path / "saved")
    again = stablepref.load(tmp_path / "saved", device="cpu", dtype=torch.float32)
    assert again.config() == scorer.config()
    for key, value in scorer.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    with torch.no_grad():
        torch.testing.assert_close(again(pixels, ["a", "b"]), scorer(pixels, ["a", "b"]))


def test_bfloat16_tower_gives_float32_scores(scorer: AestheticScorer) -> None:
    pixels = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        exact = scorer(pixels, ["a", "b"])
        scores = scorer.to(torch.bfloat16)(pixels, ["a", "b"])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact, rtol=0.05, atol=0.01)


def test_full_precision_embeddings_are_open_clips(scorer: AestheticScorer) -> None:
    inputs = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = functional.normalize(scorer.visual(inputs), dim=-1)
        assert torch.equal(scorer.encode_inputs(inputs), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_nearer_than_open_clips(dtype: torch.dtype) -> None:
    """The sum that runs through the blocks is not rounded, as in the CLIP scorer."""
    half = with_head(small_clip(layers=12), head_state("mlp")).to(dtype)
    exact = copy.deepcopy(half).double()  # equal weights: only the arithmetic differs
    inputs = torch.randn(20, 3, 32, 32).to(dtype)
    with torch.no_grad():
        reference = functional.normalize(exact.visual(inputs.double()), dim=-1)
        ours = half.encode_inputs(inputs.float())
        plain = functional.normalize(half.visual(inputs).double(), dim=-1)
    assert ours.dtype == torch.float32
    errors = [(features - reference).square().mean().sqrt() for features in (ours, plain)]
    assert errors[0] < 0.6 * errors[1]


def test_dropout_only_while_training() -> None:
    head = MLPHead(768)
    x = torch.randn(4, 768)
    assert torch.equal(head.eval()(x), head(x))
    torch.manual_seed(0)
    assert not torch.equal(head.train()(x), head(x))


def test_head_of_another_clip() -> None:
    with pytest.raises(
        WeightsError, match=r"layers.0.weight is \(1024, 768\), expected \(1024, 512"
    ):
        with_head(small_clip(embed_dim=512), head_state("mlp"))


def test_foreign_head_names_its_keys() -> None:
    with pytest.raises(WeightsError, match=r"missing: layers.0.bias.*unexpected: fc.weight"):
        with_head(small_clip(), {"fc.weight": torch.zeros(1)})


def test_unknown_head() -> None:
    with pytest.raises(ValueError, match="'cubic'; expected one of 'linear', 'mlp'"):
        AestheticScorer({}, head="cubic", preprocess=Preprocess("clip"), name="x")


def test_linear_head_widens_half_precision() -> None:
    head = LinearHead(8).half()
    assert head(torch.ones(2, 8, dtype=torch.float16)).dtype == torch.float32
