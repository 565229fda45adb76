"""Sizes of the ablations: what is refused, and after which steps a training is looked at."""

from typing import Any

import pytest

from stablepref.benchmarks.shapes.ablation.suite import Suite, watch_steps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number, 1 or more"),
        ({"seeds": 2.5}, "seeds is 2.5; expected a whole number"),
        ({"image_blocks": -1}, "image_blocks is -1; expected a whole number, 0 or more"),
        ({"rates": ()}, r"rates is \(\); expected numbers above 0"),
        ({"taus": (0.1, 0)}, "expected numbers above 0"),
        ({"mixed_precision": "fp16"}, "mixed_precision is 'fp16'; expected no or bf16"),
        ({"bs": "wide"}, "bs is 'wide'; expected numbers above 0"),
    ],
)
def test_sizes_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Suite(**values)


def test_a_single_rate_will_do() -> None:
    assert Suite(rates=1e-4).rates == (1e-4,)  # type: ignore[arg-type] # as an option gives it
    assert Suite(rates=(3e-4, 1e-4, 3e-4)).rates == (1e-4, 3e-4)
    assert watch_steps(400) == (12, 25, 50, 75, 100, 150, 200, 300, 400)
    assert watch_steps(2) == (1, 2)
