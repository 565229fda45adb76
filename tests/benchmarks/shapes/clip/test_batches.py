"""Batches of the laboratory's CLIP, and what it learns from them."""

import math
import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from stablepref.benchmarks.shapes.clip.batches import (
    Batch,
    BatchConfig,
    TrainingBatches,
    batch_scenes,
    crop_pictures,
)
from stablepref.benchmarks.shapes.clip.model import build_model
from stablepref.benchmarks.shapes.clip.objective import batch_losses
from stablepref.benchmarks.shapes.clip.patches import PatchHead
from stablepref.benchmarks.shapes.clip.scene_code import describe_pictures, scene_codes
from stablepref.benchmarks.shapes.world.errors import error_kinds
from stablepref.benchmarks.shapes.world.language import describe
from stablepref.benchmarks.shapes.world.scenes import Scene, split_of
from stablepref.benchmarks.shapes.world.vocabulary import load_tokenizer, write_vocabulary


@pytest.mark.parametrize("focus", [0.0, 1.0])
def test_batches_hold_distinct_training_scenes_in_groups(focus: float) -> None:
    config = BatchConfig(batch_size=64, group_size=4, focus=focus)
    reversed_pairs = 0
    for seed in range(4):
        scenes = batch_scenes(config, random.Random(seed))
        assert len(set(scenes)) == 64
        assert {split_of(scene) for scene in scenes} == {"train"}
        for start in range(0, 64, 4):
            first, *others = scenes[start : start + 4]
            flipped = Scene(first.groups[::-1], first.relation, first.background)
            if first.relation is not None and split_of(flipped) == "train" and focus:
                assert flipped in others
                reversed_pairs += 1
            assert error_kinds(first)
    assert bool(reversed_pairs) == bool(focus)


def test_group_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of group_size, got 10 and 4"):
        BatchConfig(batch_size=10, group_size=4)


def flat(batch: Batch) -> list[torch.Tensor]:
    """All tensors of a batch."""
    return [*batch[:-1], *batch.objects]


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "bpe.txt.gz")
    config = BatchConfig(batch_size=8)
    batches, again = (TrainingBatches(config, tmp_path / "bpe.txt.gz", 3) for _ in range(2))
    again[2]
    for one, other in zip(flat(batches[1]), flat(again[1]), strict=True):
        assert torch.equal(one.nan_to_num(9), other.nan_to_num(9))
    assert not torch.equal(batches[0].pictures, batches[1].pictures)
    other_seed = TrainingBatches(BatchConfig(batch_size=8, seed=1), tmp_path / "bpe.txt.gz", 3)
    assert not torch.equal(batches[0].pictures, other_seed[0].pictures)
    area = torch.cat([batches[step].crops for step in range(3)])[:, 2] ** 2
    assert area.min() >= 0.85
    assert area.max() == 1


def test_crops_equal_cutting_and_resizing() -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    crops = torch.tensor([[0.0, 0.0, 1.0], [0.25, 0.125, 0.5]])
    whole, cut = crop_pictures(pictures, crops)
    torch.testing.assert_close(whole, pictures[0], rtol=0, atol=1e-5)
    window = pictures[1:, :, 8:40, 16:48]
    resized = functional.interpolate(window, size=(64, 64), mode="bilinear", align_corners=False)
    # At its edges the crop sees the picture beyond, the resized window does not.
    torch.testing.assert_close(cut[:, 1:-1, 1:-1], resized[0, :, 1:-1, 1:-1], rtol=0, atol=1e-5)


def test_contrast_and_codes_equal_a_naive_loop(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "bpe.txt.gz")
    tokenizer = load_tokenizer(tmp_path / "bpe.txt.gz")
    vision = {"image_size": 64, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    text = {"context_length": 40, "layers": 1, "width": 32, "heads": 2}
    backbone = {
        "embed_dim": 16,
        "vision_cfg": vision,
        "text_cfg": {**text, "vocab_size": tokenizer.vocab_size},
    }
    model = build_model(backbone, seed=0)
    batch = TrainingBatches(BatchConfig(batch_size=8), tmp_path / "bpe.txt.gz", 1)[0]
    batch = batch._replace(crops=torch.tensor([[0.0, 0.0, 1.0]] * 8))
    with torch.no_grad():
        losses = batch_losses(model, PatchHead(32), batch, precision="fp32")
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        images = model.encode_image((batch.pictures / 255 - mean) / std, normalize=True).tolist()
        prompts = model.encode_text(batch.tokens, normalize=True).tolist()
    scale = 1 / 0.07
    scores = [[scale * math.fsum(map(math.prod, zip(i, p, strict=True))) for p in prompts]
              for i in images]  # fmt: skip
    total, hits = 0.0, 0
    for own in range(8):
        row, column = scores[own], [scores[other][own] for other in range(8)]
        for line in (row, column):
            total -= line[own] - math.log(sum(map(math.exp, line)))
        hits += row.index(max(row)) == own
    assert losses.contrast.item() == pytest.approx(total / 16, rel=1e-4)
    assert losses.top1.item() == hits / 8
    shown = describe_pictures(batch.descriptions, batch.objects)
    for found, features, descriptions in (
        (losses.pictures, images, shown),
        (losses.prompts, prompts, batch.descriptions),
    ):
        codes = scene_codes(descriptions, 16).tolist()
        cosines = [math.fsum(map(math.prod, zip(*pair, strict=True)))
                   for pair in zip(features, codes, strict=True)]  # fmt: skip
        assert found.item() == pytest.approx(1 - sum(cosines) / 8, abs=1e-5)


def test_equal_seeds_build_equal_models_without_touching_the_global_generator() -> None:
    backbone = {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": 64,
            "patch_size": 8,
            "layers": 1,
            "width": 32,
            "head_width": 16,
        },
        "text_cfg": {"context_length": 8, "layers": 1, "width": 32, "heads": 2, "vocab_size": 9},
    }
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, other = build_model(backbone, seed=1), build_model(backbone, seed=1)
    assert torch.equal(torch.rand(1), expected)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    # Neighbouring places begin nearly equal, far ones do not.
    grid = one.visual.positional_embedding[1:].view(8, 8, 32)
    near = functional.cosine_similarity(grid[:, :-1], grid[:, 1:], dim=-1).mean()
    far = functional.cosine_similarity(grid[:, 0], grid[:, -1], dim=-1).mean()
    assert near > far + 0.3


@pytest.mark.parametrize("plain", [0.0, 0.5, 1.0])
def test_a_share_of_the_prompts_is_plain(plain: float, tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "bpe.txt.gz")
    config = BatchConfig(batch_size=64, plain=plain)
    batches = TrainingBatches(config, tmp_path / "bpe.txt.gz", 2)
    found = 0
    for step in range(2):
        scenes = batch_scenes(config, random.Random(f"batch 0 {step}"))
        plainest = batches.tokenizer([describe(scene) for scene in scenes])
        found += int((batches[step].tokens == plainest).all(dim=1).sum())
    # Some scenes have few paraphrases, so the plainest comes up by itself, too.
    assert plain * 128 * 0.7 <= found <= 128
    assert (found == 128) == (plain == 1)
    assert plain or found < 40
