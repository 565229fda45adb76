"""The second task's targets say what stands where, and the batches that carry them."""

import math
import random
from pathlib import Path

import pytest
import torch
from stablepref.benchmarks.shapes.auxiliary import SceneHead, scene_loss, scene_targets
from stablepref.benchmarks.shapes.batches import (
    BatchConfig,
    TrainingBatches,
    batch_scenes,
    crop_pictures,
)
from stablepref.benchmarks.shapes.errors import error_kinds
from stablepref.benchmarks.shapes.model import build_model
from stablepref.benchmarks.shapes.scenes import COLOURS, SHAPES, Group, Scene, split_of
from stablepref.benchmarks.shapes.train import (
    TrainConfig,
    batch_losses,
    learning_rate_at,
)
from stablepref.benchmarks.shapes.vocabulary import load_tokenizer, write_vocabulary
from torch.nn import functional

CIRCLE = Group(1, "red", "circle")
SQUARE = Group(1, "blue", "square")
STAR = Group(1, "red", "star")
KINDS = len(COLOURS) * len(SHAPES)


def place(targets: torch.Tensor, relation: str, name: str) -> float:
    """The target for one attribute's place in one relation."""
    column = (*COLOURS, *SHAPES).index(name)
    offset = KINDS + ("left of", "above").index(relation) * (len(COLOURS) + len(SHAPES))
    return float(targets[offset + column])


def test_targets_of_hand_worked_scenes() -> None:
    scenes = [
        Scene((CIRCLE, SQUARE), "left of"),
        Scene((SQUARE, CIRCLE), "left of"),
        Scene((CIRCLE, SQUARE, STAR), "above"),
        Scene((Group(3, "green", "ring"),)),
    ]
    left, right, column, rings = scene_targets(scenes)
    for name, first in (("red", -1), ("circle", -1), ("blue", 1), ("square", 1)):
        assert place(left, "left of", name) == first
        assert place(right, "left of", name) == -first
        assert math.isnan(place(left, "above", name))
    assert math.isnan(place(left, "left of", "green"))
    # Two of the three groups are red, so red has no one place.
    assert math.isnan(place(column, "above", "red"))
    assert [place(column, "above", name) for name in ("circle", "square", "star")] == [-1, 0, 1]
    assert rings[KINDS:].isnan().all()
    kind = COLOURS.index("green") * len(SHAPES) + SHAPES.index("ring")
    assert rings[kind] == 1.5
    assert rings[:KINDS].sum() == 1.5
    assert left[:KINDS].sum() == 1


def test_scene_loss_equals_a_naive_loop_and_ignores_what_is_unknown() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = scene_targets([Scene((CIRCLE, SQUARE), "above"), Scene((STAR,))])
    predicted = torch.randn(targets.shape, generator=generator, requires_grad=True)
    counts, places = 0.0, []
    for row, wanted in zip(predicted.tolist(), targets.tolist(), strict=True):
        for column, (got, target) in enumerate(zip(row, wanted, strict=True)):
            if column < KINDS:
                counts += (got - target) ** 2 / 2
            elif not math.isnan(target):
                places.append((got - target) ** 2)
    loss = scene_loss(predicted, targets)
    assert loss.item() == pytest.approx(counts + sum(places) / len(places), rel=1e-5)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[targets.isnan()] == 0).all()


def test_scene_loss_is_finite_without_any_relation() -> None:
    targets = scene_targets([Scene((STAR,))])
    assert scene_loss(torch.zeros_like(targets), targets).item() == pytest.approx(0.25)


def test_the_head_starts_by_saying_nothing() -> None:
    assert (SceneHead(8)(torch.randn(3, 8)) == 0).all()


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


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "bpe.txt.gz")
    config = BatchConfig(batch_size=8)
    batches, again = (TrainingBatches(config, tmp_path / "bpe.txt.gz", 3) for _ in range(2))
    again[2]
    for one, other in zip(batches[1], again[1], strict=True):
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


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = TrainConfig(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate_at(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_contrast_equals_a_naive_loop(tmp_path: Path) -> None:
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
        losses = batch_losses(model, SceneHead(16), batch, precision="fp32")
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
