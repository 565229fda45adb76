"""Muon against a singular value decomposition and a step worked by hand."""

import pytest
import torch
from torch import Tensor, nn

from stablepref.benchmarks.shapes.clip.muon import Muon, nearest_orthogonal


def by_svd(weight: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return (left @ right).reshape(weight.shape)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3, 3), (1, 6)])
def test_the_nearest_orthogonal_matrix_is_that_of_the_svd(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = 1e-3 * torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(nearest_orthogonal(weight), by_svd(weight))
    single = nearest_orthogonal(weight.float())
    torch.testing.assert_close(single, by_svd(weight).float(), rtol=1e-3, atol=1e-3)


def test_directions_of_no_size_stay_so() -> None:
    torch.manual_seed(0)
    flat = torch.randn(6, 1) @ torch.randn(1, 9)
    kept = torch.linalg.svdvals(nearest_orthogonal(flat))
    assert kept[0] == pytest.approx(1, abs=2e-3)
    assert kept[1] < 0.1
    assert torch.equal(nearest_orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_steps_are_those_worked_by_hand() -> None:
    # Diagonal momenta have the signs of their entries as the nearest orthogonal matrix.
    weight = nn.Parameter(torch.diag(torch.tensor([1.0, 2.0])))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    size = 0.1 * 0.2 * 2**0.5
    wanted = torch.tensor([1.0, 2.0])
    # The second entry's gradient turns, but not yet its momentum.
    for gradient, signs in (((3.0, -8.0), (1.0, -1.0)), ((3.0, 0.1), (1.0, -1.0))):
        weight.grad = torch.diag(torch.tensor(gradient))
        optimizer.step()
        wanted = wanted * (1 - 0.1 * 0.5) - size * torch.tensor(signs)
        torch.testing.assert_close(weight.detach(), torch.diag(wanted), rtol=1e-4, atol=1e-4)


def test_weights_without_gradient_stay_and_a_closure_is_called() -> None:
    trained, other = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(3))
    optimizer = Muon([trained, other], lr=0.1, weight_decay=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (trained * torch.arange(9.0).reshape(3, 3)).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(12)
    assert torch.equal(other.detach(), torch.eye(3))
    assert not torch.equal(trained.detach(), torch.eye(3))


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(4, 3, 5)
    weights = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(3, 5))]
    whole, first = (Muon([weight], lr=0.1) for weight in weights)
    for step, gradient in enumerate(gradients):
        if step == 2:
            state = first.state_dict()
            first = Muon([weights[1]], lr=9.0)
            first.load_state_dict(state)
        for optimizer, weight in ((whole, weights[0]), (first, weights[1])):
            weight.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(weights[0].detach(), weights[1].detach())


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not weights of shape \(3,\)"):
        Muon([nn.Parameter(torch.ones(3))], lr=0.1)
