"""The contract that every scorer keeps, whatever its architecture."""

import copy
import json
import pickle
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip
from helpers.tiny_scorers import BUILDERS
from PIL import Image
from torch import nn

from stablepref.data.groups import RankedGroup
from stablepref.evaluation.evaluate import evaluate
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer
from stablepref.zoo import load

PROMPTS = ["a red circle", "a photo of a cat", "a red circle", "two dogs in the snow"]


@pytest.fixture(scope="module", params=BUILDERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    torch.manual_seed(0)
    return BUILDERS[request.param]().eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(4, 3, 80, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    shapes = [(80, 96), (64, 64), (100, 40), (30, 90), (70, 71)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in shapes]


def test_forward_gives_one_float32_score_per_pair(scorer: Scorer, pixels: torch.Tensor) -> None:
    scores = scorer(pixels, PROMPTS)
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert len(scores.unique()) == 4


def test_a_batch_equals_its_singles(scorer: Scorer, pixels: torch.Tensor) -> None:
    singles = [scorer(pixels[i : i + 1], PROMPTS[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(scorer(pixels, PROMPTS), torch.cat(singles), rtol=1e-5, atol=1e-5)


def test_the_prompt_matters_and_stays_with_its_image(scorer: Scorer, pixels: torch.Tensor) -> None:
    same = pixels[:1].expand(4, -1, -1, -1)
    scores = scorer(same, PROMPTS)
    assert scores[0] == scores[2]
    assert (scores[0] != scores[1]) == scorer.needs_prompt


def test_gradient_reaches_every_pixel_and_is_right(scorer: Scorer) -> None:
    double = copy.deepcopy(scorer).double()
    x = torch.rand(1, 3, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = x * 0.8 + 0.1
    x.requires_grad_()
    score = double(x, PROMPTS[:1])
    assert score.dtype == torch.float64
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert gradient.isfinite().all()
    reached = gradient.abs().sum(dim=(0, 1)) > 0
    assert reached.float().mean() > 0.8  # a centre crop leaves the ends of the long side unseen
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    step = 1e-5
    with torch.no_grad():
        ahead = double(x + step * direction, PROMPTS[:1])
        behind = double(x - step * direction, PROMPTS[:1])
    numeric = (ahead - behind) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric[0], rtol=1e-4, atol=1e-7)


def test_gradient_reaches_every_parameter_that_training_would_move(
    scorer: Scorer, pixels: torch.Tensor
) -> None:
    trained = copy.deepcopy(scorer)
    trained(pixels, PROMPTS).pow(2).sum().backward()
    without = {name for name, p in trained.named_parameters() if p.grad is None}
    assert not without


def test_score_of_float_pixels_is_forward(scorer: Scorer, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        expected = scorer(pixels, PROMPTS)
    torch.testing.assert_close(scorer.score(pixels, PROMPTS), expected, rtol=1e-5, atol=1e-5)


def test_score_of_pictures_is_exact_preprocessing_then_the_stages(
    scorer: Scorer, pictures: list[Image.Image]
) -> None:
    expected = []
    with torch.no_grad():
        for picture in pictures:
            features = scorer.encode_inputs(scorer.preprocess.exact(picture)[None])
            expected.append(scorer.match(features, scorer.encode_prompts(["a cat"])))
    for batch_size in (None, 1, 2, 5):
        scores = scorer.score(pictures, "a cat", batch_size=batch_size)
        torch.testing.assert_close(scores, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_score_matrix_holds_every_pair(scorer: Scorer, pictures: list[Image.Image]) -> None:
    prompts = ["a cat", "a dog", "an owl"]
    matrix = scorer.score_matrix(pictures, prompts, batch_size=2)
    columns = [scorer.score(pictures, prompt) for prompt in prompts]
    torch.testing.assert_close(matrix, torch.stack(columns, dim=1), rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_gives_equal_scores(
    scorer: Scorer, pictures: list[Image.Image], tmp_path: Path
) -> None:
    scorer.save_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model", device="cpu", dtype="float32")
    assert type(loaded) is type(scorer)
    assert not loaded.training
    assert (loaded.name, loaded.unit, loaded.protocol, loaded.preference_scale) == (
        scorer.name,
        scorer.unit,
        scorer.protocol,
        scorer.preference_scale,
    )
    assert all(
        torch.equal(value, loaded.state_dict()[key]) for key, value in scorer.state_dict().items()
    )
    torch.testing.assert_close(loaded.score(pictures, "a cat"), scorer.score(pictures, "a cat"))
    json.dumps(scorer.config())


def test_bfloat16_is_near_and_scores_stay_float32(scorer: Scorer, pixels: torch.Tensor) -> None:
    low = copy.deepcopy(scorer).to(torch.bfloat16)
    with torch.no_grad():
        scores = low(pixels, PROMPTS)
        exact = scorer(pixels, PROMPTS)
    assert scores.dtype == torch.float32
    # bfloat16 keeps 8 bits: what is of size 1, a cosine or the inside of a head, is off by about
    # 2**-8, and a cosine's error is multiplied by the logit scale.
    unit = scorer.logit_scale.item() if isinstance(scorer, CLIPScorer) else 2.0
    assert (scores - exact).abs().max() < unit * 2**-8
    finer_than_bfloat16 = scores.to(torch.bfloat16).float() != scores
    assert finer_than_bfloat16.any()


def test_copies_and_pickles_score_alike(scorer: Scorer, pictures: list[Image.Image]) -> None:
    expected = scorer.score(pictures, "a cat")
    for twin in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        torch.testing.assert_close(twin.score(pictures, "a cat"), expected)


def test_scoring_leaves_the_training_mode_as_it_was(
    scorer: Scorer, pictures: list[Image.Image]
) -> None:
    expected = scorer.score(pictures, "a cat")
    training = copy.deepcopy(scorer).train()
    torch.testing.assert_close(training.score(pictures, "a cat"), expected)
    assert training.training
    assert torch.is_grad_enabled()


def test_threads_share_a_scorer(scorer: Scorer, pictures: list[Image.Image]) -> None:
    prompts = [f"prompt number {i}" for i in range(8)]
    expected = [scorer.score(pictures, prompt) for prompt in prompts]
    found: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        found[i] = scorer.score(pictures, prompts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        torch.testing.assert_close(found[i], expected[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prompts", "error", "says"),
    [
        ("a cat", TypeError, "list of prompts"),
        (["a cat"], ValueError, "4 images"),
        (["a", "b", "c", ""], ValueError, "empty"),
        (["a", "b", "c", 4], TypeError, "string"),
    ],
)
def test_forward_refuses_wrong_prompts(
    scorer: Scorer, pixels: torch.Tensor, prompts: object, error: type[Exception], says: str
) -> None:
    if says == "empty" and not scorer.needs_prompt:
        assert torch.equal(scorer(pixels, prompts), scorer(pixels, ["a", "b", "c", "d"]))
        return
    with pytest.raises(error, match=says):
        scorer(pixels, prompts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x * 2 - 1, r"\(x \+ 1\) / 2"),
        (lambda x: x * 255, "255"),
        (lambda x: x * torch.nan, "NaN"),
        (lambda x: x[:, :1], "3"),
        (lambda x: x[0, 0], "shape|rank|prompts"),
        (lambda x: (x * 255).to(torch.uint8), "picture 0 is torch.uint8"),
        (lambda x: x.to(torch.complex64), "picture 0 is torch.complex64"),
        (lambda x: x[..., :0], "at least one pixel"),
        (lambda x: x.numpy(), "got ndarray; `score` takes images in any form"),
        (list, "got list; `score` takes images in any form"),
    ],
)
def test_forward_refuses_wrong_pixels(
    pixels: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    wrong = change(pixels)
    with pytest.raises((ValueError, TypeError), match=says):
        tiny_clip()(wrong, ["a cat"] * len(wrong))


def test_the_range_is_checked_on_the_first_call_only(pixels: torch.Tensor) -> None:
    scorer = tiny_clip()
    scorer(pixels, PROMPTS)
    assert scorer(pixels * 3, PROMPTS).isfinite().all()


def test_a_subclass_must_supply_the_stages() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Scorer(  # type: ignore[abstract] # the point of the test
            name="x", unit="y", preprocess=Preprocess("clip", 64), preference_scale=None
        )


def test_a_copy_of_a_compiled_scorer_has_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(function: Callable[[torch.Tensor], torch.Tensor]) -> object:
        def run(inputs: torch.Tensor) -> torch.Tensor:
            return function(inputs)

        return run

    monkeypatch.setattr(torch, "compile", bound)
    scorer, pixels = tiny_clip(), torch.rand(2, 3, 64, 64)
    scorer.compile_images()
    before = scorer(pixels, ["a", "b"])
    for again in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert torch.equal(again(pixels, ["a", "b"]), before)
        torch.nn.init.zeros_(again.model.visual.proj)
        assert not torch.equal(again(pixels, ["a", "b"]), before)
    assert torch.equal(scorer(pixels, ["a", "b"]), before)


@final
class Ragged(Scorer):
    """Inputs of many sizes: a batch is a list, and the score is the number of pixels of red."""

    def __init__(self) -> None:
        super().__init__(name="ragged", unit="pixels", preprocess=AnySize(), preference_scale=None)
        self.factor = nn.Parameter(torch.ones(()))
        self.batches: list[list[torch.Size]] = []

    def collate(self, inputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        return list(inputs)

    def encode_inputs(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        assert isinstance(inputs, list)
        self.batches.append([one.shape for one in inputs])
        return torch.stack([one[0].sum() for one in inputs])

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(prompts))

    def match(self, image_features: torch.Tensor, prompt_features: torch.Tensor) -> torch.Tensor:
        return self.factor * image_features + prompt_features

    def config(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        raise NotImplementedError

    def save_files(self, folder: Path) -> None:
        raise NotImplementedError


class AnySize(nn.Module):
    """Pictures in their own size; a view is the upper left half of one."""

    protocol = "any size"

    def exact(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    def forward(
        self,
        pixels: Iterable[torch.Tensor],
        boxes: torch.Tensor | None = None,
        hflip: torch.Tensor | None = None,
    ) -> list[Any]:
        if boxes is None:
            return list(pixels)
        return [[one[:, : one.shape[1] // 2] for _ in boxes[0]] for one in pixels]


def test_a_model_of_inputs_that_are_no_equal_squares(pictures: list[Image.Image]) -> None:
    """Batches, weak views, the matrix, perturbations, rewards and ensembles go through collate."""
    red = [np.asarray(picture)[..., 0].sum() / 255 for picture in pictures]
    half = [np.asarray(picture)[: picture.height // 2, :, 0].sum() / 255 for picture in pictures]
    scorer = Ragged()
    assert scorer.score(pictures, "a").tolist() == pytest.approx(red, rel=1e-5)
    assert scorer.batches == [[torch.Size((3, p.height, p.width)) for p in pictures]]
    viewed = [item.view_scores for item in scorer.stream(pictures, "a", views=2)]
    expected = [[whole, part, part] for whole, part in zip(red, half, strict=True)]
    np.testing.assert_allclose(viewed, expected, rtol=1e-5)
    matrix = scorer.score_matrix(pictures, ["a", "b"], batch_size=2)
    np.testing.assert_allclose(matrix, np.stack([red, red], axis=1), rtol=1e-5)
    mixed = [pictures[0], torch.rand(3, 7, 9), pictures[1]]
    assert scorer.score(mixed, "a")[2].item() == pytest.approx(red[1], rel=1e-5)
    pixels = torch.rand(2, 3, 6, 8, requires_grad=True)
    scorer(pixels, ["a", "b"]).sum().backward()
    assert pixels.grad is not None
    assert torch.equal(pixels.grad[:, 0], torch.ones(2, 6, 8))
    rewards = DifferentiableReward(scorer, views=1)(pixels, ["a", "b"])
    torch.testing.assert_close(
        rewards, (pixels[:, 0].sum((1, 2)) + pixels[:, 0, :3].sum((1, 2))) / 2
    )
    together = Ensemble([scorer, tiny_clip()], weights=[1.0, 1.0])
    own, other = (one.score(pictures, "a", views=1) for one in (scorer, tiny_clip()))
    found = together.score(pictures, "a", views=1)
    torch.testing.assert_close(found, own + other, rtol=1e-5, atol=1e-3)
    groups = [RankedGroup("a", pictures, tuple(range(len(pictures))))]
    report = evaluate(scorer, groups, perturbations=["jpeg-50"])
    np.testing.assert_allclose(report.scored[0].scores[0], red, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "imagereward", "blip"])
def test_towers_hold_every_weight_but_the_logit_scale_once(kind: str) -> None:
    """All but text position embeddings outside the text tower's parts belong to one of them."""
    scorer = BUILDERS[kind]()
    found: list[int] = []
    for tower in scorer.towers():
        assert len(tower.blocks) == 2
        for part in (*tower.first, *tower.blocks, *tower.last):
            weights = part.parameters() if isinstance(part, nn.Module) else [part]
            found += [id(weight) for weight in weights if weight is not None]
    assert len(found) == len(set(found))
    scale = scorer.log_scale
    assert (scale is not None) == (kind == "clip")
    assert set(found) == {id(p) for p in scorer.parameters() if p is not scale}


def test_a_scorer_without_towers_says_so() -> None:
    scorer = BUILDERS["aesthetic-mlp"]()
    for ask in (scorer.towers, scorer.checkpoint_activations):
        with pytest.raises(ValueError, match="AestheticScorer, which does not have an image and"):
            ask()
    assert scorer.log_scale is None
    scorer.after_step()  # nothing to bound


@pytest.mark.parametrize("kind", ["clip", "imagereward", "blip"])
def test_checkpointed_activations_give_the_same_gradient(kind: str, pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    plain = BUILDERS[kind]().eval()
    kept = copy.deepcopy(plain)
    kept.checkpoint_activations()
    for scorer in (plain, kept):
        scorer(pixels, PROMPTS).pow(2).sum().backward()
    pairs = zip(plain.named_parameters(), kept.parameters(), strict=True)
    for (name, one), other in pairs:
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", ["score", "stream", "rank", "score_matrix"])
def test_an_unknown_option_is_a_type_error(method: str, pictures: list[Image.Image]) -> None:
    prompt = ["a"] if method == "score_matrix" else "a"
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        getattr(tiny_clip(), method)(pictures, prompt, batchsize=4)


def test_the_matrix_has_no_views(pictures: list[Image.Image]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'views'"):
        tiny_clip().score_matrix(pictures, ["a"], views=2)  # type: ignore[call-arg] # the point
