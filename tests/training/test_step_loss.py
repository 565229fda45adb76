"""The loss of a step: its gradient in the scores, what it is shown, and what it may not return."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny import tiny_clip
from torch import Tensor

from stablepref.losses import Objective
from stablepref.training.loader import ShareReader
from stablepref.training.pairs import PairBatches
from stablepref.training.resume import qualified_name
from stablepref.training.step import ViewScores, backward, loss_and_gradient, objectives_of

SCORES = torch.tensor([[1.0, 1.5], [2.0, 2.5], [4.0, 3.0]])
BETTER, WORSE = torch.tensor([2, 1]), torch.tensor([0, 2])
LABEL = torch.ones(2)


def squared(scores: Tensor, better: Tensor, worse: Tensor, label: Tensor) -> Tensor:
    del label
    return (1 - scores[better, 0] + scores[worse, 0]).square().sum()


def test_a_scalar_by_hand() -> None:
    """Margins 3 and -2: (1 - 3)² + (1 + 2)² = 13; the derivatives are -2 (1 - 3) and -2 (1 + 2)."""
    found, gradient = loss_and_gradient(squared, SCORES, BETTER, WORSE, LABEL)
    assert float(found.loss) == 13
    assert found.margin.tolist() == [3, -2]
    assert found.weight.tolist() == [1, 1]
    assert not found.loss.requires_grad
    assert gradient.tolist() == [[-4, 0], [-6, 0], [4 + 6, 0]]
    assert SCORES.grad is None


def test_its_own_margins_and_weights_are_kept() -> None:
    def own(scores: Tensor, *_: Tensor) -> Objective:
        return Objective(scores.sum(), torch.tensor([5.0, 6.0]), torch.tensor([0.0, 2.0]))

    found, gradient = loss_and_gradient(own, SCORES, BETTER, WORSE, LABEL)
    assert found.margin.tolist() == [5, 6]
    assert found.weight.tolist() == [0, 2]
    assert gradient.unique().tolist() == [1]


def test_without_pairs_it_is_not_called() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    with torch.no_grad():
        found, gradient = loss_and_gradient(refused, SCORES, nothing, nothing, torch.empty(0))
    assert float(found.loss) == 0
    assert found.margin.shape == found.weight.shape == (0,)
    assert not gradient.any()


def refused(*_: Tensor) -> Tensor:
    raise AssertionError("called")


def constant(*_: Tensor) -> Tensor:
    return torch.zeros((), requires_grad=True) * 2


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda *_: 0.5, TypeError, "the loss returned a float; expected a scalar tensor or an Ob"),
        (lambda *_: None, TypeError, "the loss returned a NoneType; expected a scalar tensor"),
        (lambda s, *_: (s.sum(), s), TypeError, "the loss returned a tuple; expected a scalar"),
        (lambda s, *_: s[:, 0], ValueError, r"a loss of shape \(3,\); expected a scalar, such"),
        (lambda s, *_: s.sum()[None], ValueError, r"a loss of shape \(1,\); expected a scalar"),
        (lambda s, *_: s.sum().detach(), ValueError, "the loss has no gradient in the scores"),
        (lambda s, *_: torch.tensor(s.sum().item()), ValueError, "no gradient in the scores"),
        (constant, ValueError, "the loss has no gradient in the scores; compute it from them"),
        (lambda s, *_: s.sum().to("meta"), ValueError, "a loss on meta; expected cpu, where the"),
        (
            lambda s, b, *_: Objective(s.sum(), s[:, 0], b.float()),
            ValueError,
            r"a margin of shape \(3,\); expected \(2,\), one number for each pair",
        ),
        (
            lambda s, b, *_: Objective(s.sum(), s[b, 0], torch.ones(())),
            ValueError,
            r"a weight of shape \(\); expected \(2,\), one number for each pair",
        ),
        (
            lambda s, b, *_: Objective(s.sum(), s[b, 0], 1.0),  # type: ignore[arg-type] # the point
            TypeError,
            "the loss returned a float as its weight; expected a tensor",
        ),
    ],
)
def test_what_is_no_loss_is_refused(
    returned: Callable[..., Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loss_and_gradient(returned, SCORES, BETTER, WORSE, LABEL)


def test_it_is_shown_usable_images_alone() -> None:
    """Of 4 groups, the last has one broken image; a mean over all scores is of the others."""
    groups = ranked_groups()
    batch = PairBatches(groups, batch_size=9, seed=1)[3]
    share = next(
        ShareReader(groups, process=0, processes=1, workers=0).read([(3, batch)], views=1)
    )[1]
    place = int(batch.better[0])
    broken = share._replace(
        usable=torch.tensor([i != place for i in range(len(batch.images))]),
        pixels=[
            torch.zeros(3, 1, 1, dtype=torch.uint8) if i == place else picture
            for i, picture in enumerate(share.pixels)
        ],
    )
    tables = []

    def mean(scores: Tensor, better: Tensor, worse: Tensor, label: Tensor) -> Tensor:
        tables.append((scores.detach(), better, worse))
        return scores.mean()

    accelerator = Accelerator(cpu=True)
    scorer = tiny_clip()
    module = accelerator.prepare(ViewScores(scorer))
    with torch.no_grad():
        whole = module(share.pixels, share.prompts, share.boxes, share.flips)
    found = backward(accelerator, module, broken, mean, micro_batch_size=3)
    expected = torch.cat([whole[:place], whole[place + 1 :]])
    (table, better, worse) = tables[0]
    torch.testing.assert_close(table, expected, rtol=1e-5, atol=1e-5)
    keep = (batch.better != place) & (batch.worse != place)
    assert found.pairs == len(better) == int(keep.sum())
    for rows, places in ((better, batch.better[keep]), (worse, batch.worse[keep])):
        torch.testing.assert_close(table[rows], whole[places], rtol=1e-5, atol=1e-5)
    # The gradient of the mean in each usable score, carried back through each of them alone.
    weight = scorer.model.visual.proj
    assert weight is not None
    carried = weight.grad
    (alone,) = torch.autograd.grad(
        torch.cat(
            [
                module(share.pixels[i : i + 1], share.prompts[i : i + 1],
                       share.boxes[i : i + 1], share.flips[i : i + 1])
                for i in range(len(batch.images))
                if i != place
            ]
        ).mean(),
        weight,
    )  # fmt: skip
    assert carried is not None
    torch.testing.assert_close(carried, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="the loss is 'hinge'; expected a function of scores"):
        objectives_of(SMALL, "hinge")  # type: ignore[arg-type] # that it is refused is the point


class Weighted(torch.nn.Module):
    """A loss that is an object."""


def test_names_of_functions() -> None:
    here = __name__
    assert qualified_name(squared) == f"{here}.squared"
    assert qualified_name(Weighted()) == f"{here}.Weighted"
    bound = partial(squared, Weighted(), tau=0.5, name="a", k=None)
    assert qualified_name(bound) == f"{here}.squared({here}.Weighted, tau=0.5, name='a', k=None)"
    assert qualified_name(partial(bound, b=1)) == qualified_name(partial(bound, b=1))
