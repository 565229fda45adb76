"""The learning rate's shape, which weights decay, and the logit scale's bounds."""

import math

import pytest
import torch
from helpers.tiny import tiny_clip

from stablepref.training.optimizer import build_optimizer
from stablepref.training.schedule import learning_rate_at


def rate(step: int, *, warmup: int = 4) -> float:
    return learning_rate_at(step, peak=1.0, steps=12, warmup_steps=warmup)


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    # Half a cosine over the 8 steps left: 1, then cos at 45, 90 and 135 degrees.
    assert rate(4) == 1
    assert rate(6) == pytest.approx(0.5 + math.sqrt(2) / 4)
    assert rate(8) == pytest.approx(0.5)
    assert rate(10) == pytest.approx(0.5 - math.sqrt(2) / 4)
    assert rate(12) == pytest.approx(0)


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    assert rate(0, warmup=0) == 1
    assert learning_rate_at(2, peak=1.0, steps=3, warmup_steps=3) == 1


def test_only_matrices_that_are_no_embeddings_of_places_decay() -> None:
    scorer = tiny_clip()
    optimizer = build_optimizer(
        scorer, learning_rate=1.0, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6
    )
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {name: decay[id(weight)] for name, weight in scorer.named_parameters()}
    matrices = ("visual.proj", "visual.conv1.weight", "text_projection", "token_embedding.weight")
    for name in (*matrices, "transformer.resblocks.0.mlp.c_fc.weight"):
        assert found[f"model.{name}"] == 0.2
    places = ("positional_embedding", "visual.positional_embedding", "visual.class_embedding")
    others = ("logit_scale", "ln_final.weight", "transformer.resblocks.0.mlp.c_fc.bias")
    for name in (*places, *others):
        assert found[f"model.{name}"] == 0


def test_steps_are_those_of_the_papers_algorithm() -> None:
    """AdamW, algorithm 2 of Loshchilov and Hutter (2019), in a naive loop in float64."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    rate, decay, (first, second), eps = 0.1, 0.2, (0.9, 0.98), 1e-6
    optimizer = build_optimizer(
        layer, learning_rate=rate, weight_decay=decay, betas=(first, second), eps=eps
    )
    gradients = [torch.randn(2, 3).double() for _ in range(4)]
    expected = layer.weight.detach().flatten().tolist()
    means, squares = [0.0] * 6, [0.0] * 6
    for step, gradient in enumerate(gradients, start=1):
        layer.weight.grad, layer.bias.grad = gradient.clone(), torch.zeros(2).double()
        bias = layer.bias.detach().clone()
        optimizer.step()
        torch.testing.assert_close(layer.bias.detach(), bias)  # which does not decay
        for place, g in enumerate(gradient.flatten().tolist()):
            means[place] = first * means[place] + (1 - first) * g
            squares[place] = second * squares[place] + (1 - second) * g * g
            mean = means[place] / (1 - first**step)
            square = squares[place] / (1 - second**step)
            expected[place] -= rate * decay * expected[place]
            expected[place] -= rate * mean / (math.sqrt(square) + eps)
    assert layer.weight.detach().flatten().tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("scale", "kept"), [(9.0, math.log(100)), (-3.0, 0.0), (2.5, 2.5)])
def test_the_logit_scale_keeps_within_its_bounds(scale: float, kept: float) -> None:
    scorer = tiny_clip()
    with torch.no_grad():
        scorer.model.logit_scale.fill_(scale)
    scorer.after_step()
    assert scorer.model.logit_scale.item() == pytest.approx(kept)
