"""The differentiable reward: its value, its gradient, robust views, memory, and wrong use."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from helpers.tiny import tiny_clip
from helpers.tiny_scorers import BUILDERS
from torch import Tensor

from stablepref.augment.views import crop_views, weak_view_boxes
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.clip import CLIPScorer
from stablepref.scorer import Scorer

PROMPTS = ["a red circle", "a dog left of a cat", "two owls"]


@pytest.fixture(params=BUILDERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    torch.manual_seed(0)
    return BUILDERS[request.param]().eval()


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 40, 52, generator=torch.Generator().manual_seed(1))


def gradient(reward: DifferentiableReward, images: Tensor, **kwargs: int) -> tuple[Tensor, Tensor]:
    leaf = images.detach().clone().requires_grad_()
    values = reward(leaf, PROMPTS[: len(leaf)], **kwargs)
    (found,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), found


def test_equals_score_of_the_same_float_pixels(scorer: Scorer, pixels: Tensor) -> None:
    rewards = DifferentiableReward(scorer)(pixels, PROMPTS)
    assert rewards.shape == (3,)
    assert rewards.dtype == torch.float32
    torch.testing.assert_close(rewards, scorer.score(pixels, PROMPTS), rtol=1e-5, atol=1e-5)


def test_images_in_minus_one_to_one(scorer: Scorer, pixels: Tensor) -> None:
    rewards = DifferentiableReward(scorer, value_range=(-1, 1))(pixels * 2 - 1, PROMPTS)
    torch.testing.assert_close(rewards, scorer.score(pixels, PROMPTS), rtol=1e-4, atol=1e-4)


def test_what_a_decoder_overshoots_is_cut_off(pixels: Tensor) -> None:
    scorer = tiny_clip()
    reward = DifferentiableReward(scorer, value_range=(-1, 1))
    overshot = pixels * 3 - 1.5
    expected = scorer.score((overshot / 2 + 0.5).clamp(0, 1), PROMPTS)
    torch.testing.assert_close(reward(overshot, PROMPTS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_robust_reward_is_mean_or_worst_of_the_scorers_views(
    scorer: Scorer, pixels: Tensor, reduce: str
) -> None:
    reward = DifferentiableReward(scorer, views=3, reduce=reduce)  # type: ignore[arg-type] # a string
    expected = []
    for item in scorer.stream(pixels, PROMPTS, views=3):
        assert len(item.view_scores) == 4
        expected.append(item.score if reduce == "mean" else min(item.view_scores))
    torch.testing.assert_close(reward(pixels, PROMPTS), torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("views", "reduce", "value_range"),
    [(0, "mean", (-1, 1)), (2, "mean", (0, 1)), (2, "min", (-1, 1))],
)
def test_gradient_is_that_of_finite_differences(
    scorer: Scorer, views: int, reduce: str, value_range: tuple[float, float]
) -> None:
    """Central differences along a random direction, in float64, at values inside the range."""
    double = copy.deepcopy(scorer).double()
    reward = DifferentiableReward(
        double,
        value_range=value_range,
        views=views,
        reduce=reduce,  # type: ignore[arg-type] # a string
    )
    generator = torch.Generator().manual_seed(3)
    unit = torch.rand(2, 3, 18, 22, dtype=torch.float64, generator=generator) * 0.8 + 0.1
    low, high = value_range
    x = low + (high - low) * unit
    values, found = gradient(reward, x)
    assert values.dtype == torch.float64
    direction = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (reward(x + s * step * direction, PROMPTS[:2]) for s in (1, -1))
    numeric = (ahead - behind) / (2 * step)
    analytic = (found * direction).flatten(1).sum(1)
    torch.testing.assert_close(analytic, numeric, rtol=1e-4, atol=1e-7)


def test_every_entry_of_the_gradient() -> None:
    reward = DifferentiableReward(tiny_clip().double(), views=1)
    x = torch.rand(1, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x = (x * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: reward(images, ["a cat"]), (x,))


@pytest.mark.parametrize("views", [0, 2])
def test_checkpointing_changes_memory_only(scorer: Scorer, pixels: Tensor, views: int) -> None:
    plain = gradient(DifferentiableReward(scorer, views=views), pixels)
    again = gradient(DifferentiableReward(scorer, views=views, checkpointing=True), pixels)
    torch.testing.assert_close(again[0], plain[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again[1], plain[1], rtol=1e-4, atol=1e-6)


def kept_bytes(reward: DifferentiableReward, images: Tensor) -> int:
    """Bytes that the graph of one forward pass keeps, each storage counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        values = reward(images.detach().clone().requires_grad_(), PROMPTS)
    assert values.requires_grad
    return sum(kept.values())


def test_checkpointing_keeps_no_activations_of_the_scorer(pixels: Tensor) -> None:
    """What is kept does not grow with the scorer's depth; without checkpointing it does."""
    shallow = tiny_clip()
    backbone = copy.deepcopy(shallow.backbone)
    backbone["vision_cfg"]["layers"] = 6
    deep = CLIPScorer(
        backbone, preprocess=shallow.preprocess, name="deep", preference_scale=None
    ).eval()

    def kept(checkpointing: bool) -> list[int]:
        rewards = [
            DifferentiableReward(scorer, views=2, checkpointing=checkpointing)
            for scorer in (shallow, deep)
        ]
        return [kept_bytes(reward, pixels) for reward in rewards]

    plain, light = kept(False), kept(True)
    assert plain[1] > 1.3 * plain[0]
    assert light[1] == light[0] < plain[0]


def test_no_gradient_reaches_the_scorer(scorer: Scorer, pixels: Tensor) -> None:
    reward = DifferentiableReward(scorer.train(), views=1)
    gradient(reward, pixels)
    assert not scorer.training
    assert all(p.grad is None and not p.requires_grad for p in scorer.parameters())


def test_step_chooses_the_views(pixels: Tensor) -> None:
    scorer = tiny_clip()
    reward = DifferentiableReward(scorer, views=2)
    first, again, other = (reward(pixels, PROMPTS, step=step) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().min() > 0


def test_views_of_a_prompt_that_names_a_side_are_not_mirrored() -> None:
    scorer = tiny_clip()
    square = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    boxes, flips = weak_view_boxes([0], 4, seed=0, hflip=True)
    assert flips.any()
    for prompt, mirrored in (("a dog left of a cat", flips & False), ("a dog", flips)):
        views = crop_views(square, boxes, mirrored)[0]
        with torch.no_grad():
            scores = scorer(torch.cat([square, views]), [prompt] * 5)
        found = DifferentiableReward(scorer, views=4)(square, [prompt])
        # One resampling in the reward, two here.
        assert found.item() == pytest.approx(scores.mean().item(), abs=0.02)


def test_a_disturbance_that_a_crop_destroys_gains_less() -> None:
    """Climbing the plain reward wins what views do not see; the robust one keeps its gain."""
    scorer = tiny_clip()
    start = torch.full((1, 3, 64, 64), 0.5)
    judge = DifferentiableReward(scorer, views=8)

    def climbed(reward: DifferentiableReward) -> tuple[float, float]:
        x = start.clone()
        for step in range(10):
            leaf = x.requires_grad_()
            (g,) = torch.autograd.grad(reward(leaf, ["a cat"], step=step).sum(), leaf)
            x = (x.detach() + 0.008 * g.sign()).clamp(0, 1)
        own = DifferentiableReward(scorer)
        gain = (own(x, ["a cat"]) - own(start, ["a cat"])).item()
        held = (judge(x, ["a cat"], step=99) - judge(start, ["a cat"], step=99)).item()
        return gain, held

    plain_gain, plain_held = climbed(DifferentiableReward(scorer))
    robust_gain, robust_held = climbed(DifferentiableReward(scorer, views=4))
    assert plain_gain > robust_gain
    assert robust_held / robust_gain > plain_held / plain_gain


def test_autocast_around_it_changes_nothing(pixels: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip())
    expected = reward(pixels, PROMPTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reward(pixels, PROMPTS), expected)


def test_half_precision_images_get_half_precision_gradients(pixels: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip())
    values, found = gradient(reward, pixels.to(torch.bfloat16))
    assert values.dtype == torch.float32
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()


def test_threads_share_a_reward(pixels: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip(), views=1)
    batches = [(pixels * (i + 1) / 8) for i in range(6)]
    expected = [gradient(reward, batch) for batch in batches]
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def work(i: int) -> None:
        found[i] = gradient(reward, batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (values, slopes) in enumerate(expected):
        torch.testing.assert_close(found[i][0], values)
        torch.testing.assert_close(found[i][1], slopes)


def test_overflow_in_half_precision_is_told(pixels: Tensor) -> None:
    scorer = tiny_clip().half()
    with torch.no_grad():
        scorer.model.visual.transformer.resblocks[0].mlp.c_fc.weight[:, :32] = 60000
    with pytest.raises(ValueError, match=r"tiny in float16 .* not finite.*float32 or bfloat16"):
        DifferentiableReward(scorer)(pixels, PROMPTS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"value_range": (0, 255)}, r"\(0, 1\) or \(-1, 1\), got \(0, 255\)"),
        ({"views": -1}, "0 or more, got -1"),
        ({"reduce": "max"}, '"mean" or "min", got \'max\''),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DifferentiableReward(tiny_clip(), **arguments)  # type: ignore[arg-type] # wrong ones


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda x: x * 2 - 1, ValueError, r"value_range=\(-1, 1\)"),
        (lambda x: x * 255, ValueError, "divide by 255"),
        (lambda x: x * torch.nan, ValueError, "overflowed in half precision"),
        (lambda x: x.permute(0, 2, 3, 1), ValueError, r"permute\(0, 3, 1, 2\)"),
        (lambda x: torch.randn(3, 4, 8, 8), ValueError, "latents.*vae=pipe.vae"),
        (lambda x: (x * 255).to(torch.uint8), TypeError, "no gradient flows"),
        (lambda x: x.to("meta"), ValueError, "on meta, the scorer is on cpu"),
    ],
)
def test_wrong_images_are_told_on_every_call(
    pixels: Tensor, change: Callable[[Tensor], Tensor], error: type[Exception], says: str
) -> None:
    reward = DifferentiableReward(tiny_clip())
    reward(pixels, PROMPTS)
    with pytest.raises(error, match=says):
        reward(change(pixels), PROMPTS)


def test_prompts_must_be_as_many_as_images(pixels: Tensor) -> None:
    reward = DifferentiableReward(tiny_clip())
    with pytest.raises(ValueError, match="1 prompts for 3 images"):
        reward(pixels, ["a cat"])
    with pytest.raises(TypeError, match="list of prompts"):
        reward(pixels, "a cat")
