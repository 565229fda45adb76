"""How many images are encoded at once where nobody says."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import tiny_clip

from stablepref.models.clip import CLIPScorer
from stablepref.models.sizes import VIT_H_14
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scoring.batching import ACCELERATOR_BATCH, CPU_BATCH, default_batch


def of(widest_bytes: int, device: str = "cpu") -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device), widest_bytes=widest_bytes)


@pytest.mark.parametrize(
    ("widest_bytes", "expected"),
    [
        (257 * 5120 * 4, 4),  # ViT-H/14 in float32: 5.3 of 25.2 million bytes
        (257 * 5120 * 2, 9),  # and in bfloat16
        (50 * 3072 * 4, CPU_BATCH),  # ViT-B/32
        (10**9, 1),
        (0, CPU_BATCH),  # not known
    ],
)
def test_a_batch_on_a_cpu_stays_in_its_cache(widest_bytes: int, expected: int) -> None:
    assert default_batch(of(widest_bytes)) == expected
    assert default_batch(of(widest_bytes, "cuda")) == ACCELERATOR_BATCH


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_the_widest_result_of_a_clip_model(dtype: torch.dtype, size: int) -> None:
    with torch.device("meta"):
        scorer = CLIPScorer(
            VIT_H_14, preprocess=Preprocess("hps", 224), name="h", preference_scale=1.0
        )
    assert scorer.to(dtype).widest_bytes == 257 * 5120 * size


def test_the_widest_result_is_the_largest_that_any_layer_gives() -> None:
    scorer, sizes = tiny_clip(), []

    def note(_: object, __: object, out: object) -> None:
        if isinstance(out, torch.Tensor) and out.ndim == 3:
            sizes.append(out.nbytes)

    for module in scorer.model.visual.modules():
        module.register_forward_hook(note)
    scorer.encode_inputs(torch.zeros(1, 3, 64, 64))
    assert scorer.widest_bytes == max(sizes)
