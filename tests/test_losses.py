"""The losses against the paper's equations: a naive loop, a pair worked by hand, and the limits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stablepref.losses import (
    MarginWeighting,
    anti_interference_loss,
    margin_log_normalizer,
    margin_weight,
    order_weight,
    pair_margin,
    preference_loss,
    stable_pair_loss,
    view_distances,
    view_spread,
    weighted_loss,
)

HUGE = 1e4


def scores(pairs: int, views: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random view scores of a realistic size: about 27, a few tenths between views."""
    generator = torch.Generator().manual_seed(seed)
    centre = 27 + 2 * torch.randn(pairs, 1, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(pairs, views, generator=generator, dtype=torch.float64)
    return (centre + noise).to(dtype)


def softmax_of_two(first: float, second: float) -> float:
    """e^first / (e^first + e^second) as equation 3 writes it."""
    return math.exp(first) / (math.exp(first) + math.exp(second))


def naive_losses(better: list[float], worse: list[float]) -> tuple[float, float, float]:
    """ΔS, L_pref and L_ai of one pair, equations 2, 3, 5 and 6 term by term."""
    l_pref = -math.log(softmax_of_two(better[0], worse[0]))
    inter = min(better) - max(worse)
    intra = ((max(better) - min(better)) + (max(worse) - min(worse))) / 2
    l_ai = -math.log(math.exp(inter) / (math.exp(inter) + math.exp(intra)))
    return better[0] - worse[0], l_pref, l_ai


def naive_step(better: Tensor, worse: Tensor, step: int, b: float, tau: float) -> float:
    """Equation 7 (mean over the batch) or 8 (sum over it) by a loop over pairs."""
    rows = [naive_losses(x, y) for x, y in zip(better.tolist(), worse.tolist(), strict=True)]
    if step == 1:
        terms = [(p + a) / (1 + math.exp((d - b) / tau)) for d, p, a in rows]
        return sum(terms) / len(terms)
    denominator = sum(math.exp(d) for d, _, _ in rows)
    return sum(math.exp(d) / denominator * (p + a) for d, p, a in rows)


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("pairs", [1, 17])
def test_both_steps_equal_a_naive_loop(pairs: int, k: int) -> None:
    better, worse = scores(pairs, 1 + k, seed=1), scores(pairs, 1 + k, seed=2)
    margin, loss = pair_margin(better, worse), stable_pair_loss(better, worse)

    first = weighted_loss(loss, order_weight(margin, b=0.3, tau=0.2))
    second = weighted_loss(loss, margin_weight(margin), "sum")

    assert first.item() == pytest.approx(naive_step(better, worse, 1, 0.3, 0.2), rel=1e-12)
    assert second.item() == pytest.approx(naive_step(better, worse, 2, 0.3, 0.2), rel=1e-12)


def test_a_pair_worked_by_hand() -> None:
    # better views 2.0, 1.5, 2.5; worse views 1.0, 1.25, 0.75; b = 0.5, tau = 0.25.
    #   ΔS     = 2.0 - 1.0                                  = 1
    #   L_pref = ln(1 + e^-1)                               = 0.31326168751822286
    #   inter  = min(better) - max(worse) = 1.5 - 1.25      = 0.25
    #   intra  = ((2.5 - 1.5) + (1.25 - 0.75)) / 2          = 0.75
    #   L_ai   = ln(1 + e^(0.75 - 0.25)) = ln(1 + e^0.5)    = 0.9740769841801067
    #   w      = 1 / (1 + e^((1 - 0.5) / 0.25)) = 1/(1+e^2) = 0.11920292202211755
    #   L_1    = 0.1192029220 * 1.2873386716983296          = 0.15345452...
    # A second pair, equal views 0 against 0: ΔS = 0, L_pref = L_ai = ln 2, so in step 2
    #   weights e/(e + 1) = 0.7310585786300049 and 0.2689414213699951,
    #   L_2 = 0.7310585786 * 1.2873386717 + 0.2689414214 * 2 ln 2 = 1.31395...
    better = torch.tensor([[2.0, 1.5, 2.5]], dtype=torch.float64)
    worse = torch.tensor([[1.0, 1.25, 0.75]], dtype=torch.float64)
    inter, intra = view_distances(better, worse)
    assert (inter.item(), intra.item()) == (0.25, 0.75)
    assert preference_loss(pair_margin(better, worse)).item() == pytest.approx(
        0.31326168751822286, rel=1e-14
    )
    assert anti_interference_loss(better, worse).item() == pytest.approx(
        0.9740769841801067, rel=1e-14
    )
    weight = order_weight(pair_margin(better, worse), b=0.5, tau=0.25)
    assert weight.item() == pytest.approx(0.11920292202211755, rel=1e-14)
    loss = stable_pair_loss(better, worse)
    assert weighted_loss(loss, weight).item() == pytest.approx(
        0.11920292202211755 * 1.2873386716983296, rel=1e-14
    )

    better = torch.cat([better, torch.zeros(1, 3, dtype=torch.float64)])
    worse = torch.cat([worse, torch.zeros(1, 3, dtype=torch.float64)])
    weights = margin_weight(pair_margin(better, worse))
    assert weights.tolist() == pytest.approx([0.7310585786300049, 0.2689414213699951], rel=1e-14)
    expected = 0.7310585786300049 * 1.2873386716983296 + 0.2689414213699951 * 2 * math.log(2)
    total = weighted_loss(stable_pair_loss(better, worse), weights, "sum")
    assert total.item() == pytest.approx(expected, rel=1e-14)


def test_only_the_extreme_views_matter_and_each_side_counts() -> None:
    better = torch.tensor([[3.0, 2.0, 4.0, 2.5]])
    worse = torch.tensor([[0.0, 1.0, -1.0, 0.5]])
    assert view_spread(better).item() == 2.0
    assert [x.item() for x in view_distances(better, worse)] == [1.0, 2.0]
    assert [x.item() for x in view_distances(worse, better)] == [-5.0, 2.0]


def test_without_views_the_anti_interference_loss_is_the_preference_loss() -> None:
    better, worse = scores(8, 1, seed=3), scores(8, 1, seed=4)
    torch.testing.assert_close(
        anti_interference_loss(better, worse), preference_loss(pair_margin(better, worse))
    )


def test_limits_of_the_order_weight() -> None:
    b, tau, epsilon = 0.3, 0.2, 0.01
    bound = b + tau * math.log((1 - epsilon) / epsilon)
    margin = torch.tensor([0.0, b, bound, bound + 1e-6, -20.0, -HUGE, HUGE], dtype=torch.float64)
    weight = order_weight(margin, b, tau).tolist()
    assert weight[0] == pytest.approx(1 / (1 + math.exp(-b / tau)), rel=1e-14)
    assert weight[0] == pytest.approx(0.818, abs=5e-4)  # what the default b and tau give
    assert weight[1] == 0.5
    assert weight[2] == pytest.approx(epsilon, rel=1e-12)
    assert weight[3] < epsilon
    assert weight[4:6] == [1.0, 1.0]
    assert weight[6] == 0.0


@pytest.mark.parametrize(
    ("kind", "exponential"),
    [
        ("softmax", math.exp),
        ("uniform", lambda _: 1.0),
        ("inverse", lambda d: math.exp(-d)),
    ],
)
def test_margin_weights_of_table_3(
    kind: MarginWeighting, exponential: Callable[[float], float]
) -> None:
    margin = torch.tensor([0.7, -1.3, 2.1, 0.0], dtype=torch.float64)
    terms = [exponential(d) for d in margin.tolist()]
    weight = margin_weight(margin, kind)
    assert weight.tolist() == pytest.approx([t / sum(terms) for t in terms], rel=1e-13)
    assert weight.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "uniform", "inverse"])
def test_parts_of_a_batch_add_up_to_the_whole(kind: MarginWeighting, detach: bool) -> None:
    """Two processes of two micro-batches each, uneven, against one process with everything."""

    def leaves() -> tuple[Tensor, Tensor]:
        return scores(11, 4, seed=5).requires_grad_(), scores(11, 4, seed=6).requires_grad_()

    def objective(
        better: Tensor, worse: Tensor, count: int | None = None, normalizer: Tensor | None = None
    ) -> Tensor:
        margin, loss = pair_margin(better, worse), stable_pair_loss(better, worse)
        weight = margin_weight(margin, kind, log_normalizer=normalizer, detach=detach)
        first = weighted_loss(loss, order_weight(margin, detach=detach), count=count)
        return first + weighted_loss(loss, weight, "sum")

    better, worse = leaves()
    expected = objective(better, worse)
    expected.backward()

    split_better, split_worse = leaves()
    parts = list(
        zip(split_better.split([3, 1, 5, 2]), split_worse.split([3, 1, 5, 2]), strict=True)
    )
    normalizers = [margin_log_normalizer(pair_margin(x, y), kind) for x, y in parts]
    normalizer = torch.logsumexp(torch.stack(normalizers), 0)
    if detach:
        normalizer = normalizer.detach()
    total = torch.stack([objective(x, y, 11, normalizer) for x, y in parts]).sum()
    total.backward()

    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(split_better.grad, better.grad)
    torch.testing.assert_close(split_worse.grad, worse.grad)


def test_weights_pass_no_gradient_unless_asked() -> None:
    margin = torch.tensor([0.1, 0.4], requires_grad=True)
    assert not order_weight(margin).requires_grad
    assert not margin_weight(margin).requires_grad
    assert order_weight(margin, detach=False).requires_grad
    assert margin_weight(margin, detach=False).requires_grad
    # With a detached weight the gradient is the weighted gradient of the loss alone.
    (gradient,) = torch.autograd.grad(
        weighted_loss(preference_loss(margin), order_weight(margin)), margin
    )
    by_hand = [
        0.5 * (1 / (1 + math.exp((d - 0.3) / 0.2))) * -(1 / (1 + math.exp(d))) for d in (0.1, 0.4)
    ]
    assert gradient.tolist() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("k", [0, 3])
def test_values_and_gradients_stay_finite(dtype: torch.dtype, detach: bool, k: int) -> None:
    margins = torch.tensor([HUGE, -HUGE, 0.0, 1.0, HUGE])
    better = torch.cat([margins[:, None], (margins[:, None] + HUGE / 4).expand(-1, k)], dim=1)
    better = better.to(dtype).requires_grad_()
    worse = torch.zeros(5, 1 + k, dtype=dtype, requires_grad=True)
    loss, margin = stable_pair_loss(better, worse), pair_margin(better, worse)
    kinds: tuple[MarginWeighting, ...] = ("softmax", "uniform", "inverse")
    weights = [order_weight(margin, detach=detach)]
    weights += [margin_weight(margin, kind, detach=detach) for kind in kinds]
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    for weight in weights:
        assert weight.dtype == loss.dtype == expected
        total = weighted_loss(loss, weight, "sum")
        gradients = torch.autograd.grad(total, (better, worse), retain_graph=True)
        for value in (loss, weight, total, *gradients):
            assert torch.isfinite(value).all()


def test_half_precision_scores_are_computed_in_float32() -> None:
    better = scores(6, 4, seed=7).bfloat16()
    worse = scores(6, 4, seed=8).bfloat16()
    exact = stable_pair_loss(better.double(), worse.double())
    torch.testing.assert_close(
        stable_pair_loss(better, worse).double(), exact, rtol=1e-6, atol=1e-6
    )


def test_one_pair_weighs_one() -> None:
    assert [margin_weight(torch.tensor([d])).item() for d in (-3.2, HUGE)] == [1.0, 1.0]


def test_soft_labels() -> None:
    margin = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
    plus = [-math.log(softmax_of_two(d, 0.0)) for d in margin.tolist()]
    minus = [-math.log(softmax_of_two(0.0, d)) for d in margin.tolist()]
    tie = [(p + m) / 2 for p, m in zip(plus, minus, strict=True)]
    assert preference_loss(margin, 0.5).tolist() == pytest.approx(tie, rel=1e-13)
    assert preference_loss(margin, 0.0).tolist() == pytest.approx(minus, rel=1e-13)
    mixed = preference_loss(margin, torch.tensor([1.0, 0.5, 0.0]))
    assert mixed.tolist() == pytest.approx([plus[0], tie[1], minus[2]], rel=1e-13)
    leaf = torch.zeros(1, requires_grad=True)
    preference_loss(leaf, 0.5).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.item() == 0.0  # a tie with equal scores asks for nothing


@pytest.mark.parametrize("kind", ["softmax", "inverse"])
def test_gradients_in_float64(kind: MarginWeighting) -> None:
    better = scores(5, 4, seed=9).requires_grad_()
    worse = scores(5, 4, seed=10).requires_grad_()

    def step_1(better: Tensor, worse: Tensor) -> Tensor:
        weight = order_weight(pair_margin(better, worse), detach=False)
        return weighted_loss(stable_pair_loss(better, worse), weight)

    def step_2(better: Tensor, worse: Tensor) -> Tensor:
        weight = margin_weight(pair_margin(better, worse), kind, detach=False)
        return weighted_loss(stable_pair_loss(better, worse), weight, "sum")

    assert torch.autograd.gradcheck(step_1, (better, worse))
    assert torch.autograd.gradcheck(step_2, (better, worse))


def test_views_with_equal_scores_share_the_gradient() -> None:
    better = torch.tensor([[1.0, 1.0]], requires_grad=True)
    anti_interference_loss(better, torch.zeros(1, 2)).sum().backward()
    # inter = 1, intra = 0: the slope of softplus(-1) is -0.2689, over the two equal minima.
    assert better.grad is not None
    assert better.grad.tolist()[0] == pytest.approx([-0.26894142 / 2] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (preference_loss, (torch.zeros(1), 1.5), "label is 1.5"),
        (order_weight, (torch.zeros(1), 0.3, 0.0), "tau is 0.0"),
        (margin_weight, (torch.zeros(1), "focal"), "kind is 'focal'"),
        (weighted_loss, (torch.zeros(1), torch.zeros(1), "max"), "reduction is 'max'"),
        (weighted_loss, (torch.zeros(2), torch.zeros(1)), "one weight for each pair"),
        (stable_pair_loss, (torch.zeros(2, 3), torch.zeros(2, 4)), r"\(2, 3\).*\(2, 4\)"),
        (pair_margin, (torch.zeros(2), torch.zeros(2)), r"\(pairs, 1 \+ k\)"),
        (view_distances, (torch.zeros(2, 0), torch.zeros(2, 0)), r"\(2, 0\)"),
    ],
)
def test_wrong_arguments_are_named(
    function: Callable[..., object], arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(*arguments)
