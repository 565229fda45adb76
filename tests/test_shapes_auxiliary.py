"""The second task's targets say what stands where, and the batches that carry them."""

import math
import random
from pathlib import Path

import pytest
import torch
from stablepref.benchmarks.shapes.auxiliary import (
    Objects,
    SceneHead,
    list_objects,
    patch_loss,
    patch_targets,
    picture_targets,
    scene_loss,
    scene_targets,
)
from stablepref.benchmarks.shapes.batches import (
    Batch,
    BatchConfig,
    TrainingBatches,
    batch_scenes,
    crop_pictures,
)
from stablepref.benchmarks.shapes.errors import error_kinds
from stablepref.benchmarks.shapes.layout import Placed
from stablepref.benchmarks.shapes.model import build_model
from stablepref.benchmarks.shapes.objective import Heads, batch_losses
from stablepref.benchmarks.shapes.scenes import COLOURS, SHAPES, Group, Scene, split_of
from stablepref.benchmarks.shapes.train import TrainConfig, learning_rate_at
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
    total = 0.0
    for row, wanted in zip(predicted.tolist(), targets.tolist(), strict=True):
        for got, target in zip(row, wanted, strict=True):
            total += 0 if math.isnan(target) else (got - target) ** 2 / 2
    loss = scene_loss(predicted, targets)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[targets.isnan()] == 0).all()


def test_the_head_starts_by_saying_nothing_and_sees_each_dimension_at_unit_spread() -> None:
    head = SceneHead(4)
    features = torch.tensor([[1.0, 10.0, -3.0, 0.0], [3.0, 30.0, -9.0, 4.0]])
    assert (head(features) == 0).all()
    head.linear.weight.data[:4] = torch.eye(4)
    expected = torch.tensor([[-1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, 1.0]])
    torch.testing.assert_close(head(features)[:, :4], expected, rtol=0, atol=1e-4)


def two_objects() -> Objects:
    """A red circle at the left and a blue square at the lower right, in a whole picture."""
    placed = (Placed(0, 0.25, 0.5, 0.2), Placed(1, 0.75, 0.75, 0.125))
    whole = torch.tensor([[0.0, 0.0, 1.0]])
    return list_objects([Scene((CIRCLE, SQUARE), "left of")], [placed], whole)


def test_objects_are_where_the_crop_shows_them() -> None:
    placed = (Placed(0, 0.25, 0.5, 0.2), Placed(1, 0.75, 0.75, 0.125))
    crop = torch.tensor([[0.25, 0.5, 0.5]])  # the lower half of the middle
    found = list_objects([Scene((CIRCLE, SQUARE), "left of")], [placed], crop)
    torch.testing.assert_close(found.places[0, 0], torch.tensor([0.0, 0.0, 0.4]))
    torch.testing.assert_close(found.places[0, 1], torch.tensor([1.0, 0.5, 0.25]))
    assert found.places[0, 2:].isnan().all()
    kinds = list(zip(found.colours[0].tolist(), found.shapes[0].tolist(), strict=True))
    names = [("red", "circle"), ("blue", "square")]
    assert kinds[:2] == [(COLOURS.index(c), SHAPES.index(s)) for c, s in names]
    assert set(kinds[2:]) == {(-1, -1)}


def test_pictures_tell_the_place_of_all_they_show() -> None:
    """Worked by hand: the middle of both is (0.5, 0.625), a unit is a quarter of the side."""
    objects = two_objects()
    (found,) = picture_targets(scene_targets([Scene((CIRCLE, SQUARE), "left of")]), objects)
    for name, across, down in (("red", -1, -0.5), ("square", 1, 0.5)):
        assert place(found, "left of", name) == pytest.approx(across)
        assert place(found, "above", name) == pytest.approx(down)
    assert math.isnan(place(found, "left of", "green"))
    assert found[:KINDS].sum() == 1  # two objects, half each


def test_patches_show_the_object_at_their_centre() -> None:
    """On a grid of four by four the centres are at 1/8, 3/8, 5/8 and 7/8."""
    grid = patch_targets(two_objects(), 4)[0].view(4, 4, 2)
    red_circle = [COLOURS.index("red") + 1, SHAPES.index("circle") + 1]
    blue_square = [COLOURS.index("blue") + 1, SHAPES.index("square") + 1]
    # (1/8, 3/8), (3/8, 3/8), ... lie sqrt(2)/8 = 0.18 from the circle's centre; its radius is 0.2.
    circle = {(1, 0), (1, 1), (2, 0), (2, 1)}
    # No centre lies within 0.125 of (0.75, 0.75): the nearest are sqrt(2)/8 away.
    for row in range(4):
        for column in range(4):
            expected = red_circle if (row, column) in circle else [0, 0]
            assert grid[row, column].tolist() == expected
    wider = two_objects()
    wider.places[0, 1, 2] = 0.18
    grid = patch_targets(wider, 4)[0].view(4, 4, 2)
    assert grid[2:, 2:].reshape(4, 2).tolist() == [blue_square] * 4


def test_patch_loss_equals_a_naive_loop() -> None:
    targets = patch_targets(two_objects(), 4)
    colours, shapes = len(COLOURS) + 1, len(SHAPES) + 1
    logits = torch.randn(1, 16, colours + shapes, generator=torch.Generator().manual_seed(0))
    errors: dict[bool, list[float]] = {True: [], False: []}
    for row, (colour, shape) in zip(logits[0].tolist(), targets[0].tolist(), strict=True):
        error = 0.0
        for part, own in ((row[:colours], colour), (row[colours:], shape)):
            error += math.log(sum(map(math.exp, part))) - part[own]
        errors[colour > 0].append(error)
    expected = sum(sum(part) / len(part) for part in errors.values())
    assert patch_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    nothing = torch.zeros_like(targets)  # pictures without objects have no mean over objects
    assert patch_loss(logits, nothing).isfinite()


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
        losses = batch_losses(model, Heads(backbone), batch, precision="fp32")
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
