"""The gradient of a global batch, whatever carries it: pairs, groups, micro-batches, processes."""

import itertools
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.forked import launch
from helpers.ranked import ranked_groups
from helpers.tiny import tiny_clip
from torch.nn import functional

from stablepref.augment.views import weak_view_boxes
from stablepref.losses import Objective, batch_objective
from stablepref.models.clip import CLIPScorer
from stablepref.training.freezing import freeze
from stablepref.training.loader import Share, ShareReader
from stablepref.training.pairs import Batch, PairBatches, collate
from stablepref.training.step import ViewScores, backward, gathered_scores

GROUPS = ranked_groups()
STEP = 3
Weighting = Literal["order", "margin", "none"]


def small_model() -> CLIPScorer:
    scorer = tiny_clip()
    freeze(scorer, image_blocks=1, text_blocks=1)
    return scorer


def read_share(batch: Batch, *, process: int = 0, processes: int = 1) -> Share:
    reader = ShareReader(GROUPS, process=process, processes=processes, workers=0)
    return next(reader.read([(STEP, batch)], views=2, seed=7, hflip=True))[1]


def whole_batch() -> Batch:
    return PairBatches(GROUPS, batch_size=9, seed=1)[STEP]


def objective(weighting: Weighting = "margin") -> "partial[Objective]":
    return partial(batch_objective, weighting=weighting, detach_weights=False)


def gradients(scorer: CLIPScorer) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in scorer.named_parameters() if p.grad is not None}


def measured(
    weighting: Weighting = "margin",
    *,
    micro_batch_size: int | None = None,
    activation_checkpointing: bool = False,
) -> tuple[float, dict[str, torch.Tensor]]:
    scorer = small_model()
    if activation_checkpointing:
        scorer.checkpoint_activations()
    accelerator = Accelerator(cpu=True)
    module = accelerator.prepare(ViewScores(scorer))
    found = backward(
        accelerator,
        module,
        read_share(whole_batch()),
        objective(weighting),
        micro_batch_size=micro_batch_size,
    )
    return float(found.objective.loss), gradients(scorer)


def naive(weighting: Weighting) -> tuple[float, dict[str, torch.Tensor]]:
    """A loop that encodes every image of every pair, and its text, again, view by view."""
    scorer, batch = small_model(), whole_batch()
    margins, losses = [], []
    for better, worse in zip(batch.better.tolist(), batch.worse.tolist(), strict=True):
        sides = []
        for place in (better, worse):
            group, image = batch.images[place]
            item = sum(len(g.images) for g in GROUPS[:group]) + image
            pixels = torch.from_numpy(GROUPS[group].images[image]).permute(2, 0, 1) / 255
            boxes, flips = weak_view_boxes([item], 2, seed=7, step=STEP, hflip=True)
            scores = [scorer(pixels[None], [GROUPS[group].prompt])]
            for box, flip in zip(boxes[0], flips[0], strict=True):
                inputs = scorer.preprocess(pixels[None], box[None, None], flip[None, None])[:, 0]
                features = scorer.encode_inputs(inputs)
                scores.append(scorer.match(features, scorer.encode_prompts([GROUPS[group].prompt])))
            sides.append(torch.cat(scores))
        one, other = sides
        margin = one[0] - other[0]
        inter = one.min() - other.max()
        intra = ((one.max() - one.min()) + (other.max() - other.min())) / 2
        loss = -functional.logsigmoid(margin) - torch.log(inter.exp() / (inter.exp() + intra.exp()))
        margins.append(margin)
        losses.append(loss)
    margin, loss = torch.stack(margins), torch.stack(losses)
    if weighting == "order":
        total = (loss / (1 + torch.exp((margin - 0.3) / 0.2))).mean()
    elif weighting == "margin":
        total = (loss * margin.exp() / margin.exp().sum()).sum()
    else:
        total = loss.mean()
    total.backward()
    return total.item(), gradients(scorer)


def assert_close(
    one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    assert one[1]
    for name, gradient in one[1].items():
        size = float(other[1][name].abs().max())
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-4 * size + 1e-9)


@pytest.mark.parametrize("weighting", ["order", "margin", "none"])
def test_loss_and_gradient_equal_a_loop_over_pairs(weighting: Weighting) -> None:
    assert_close(measured(weighting), naive(weighting))


@pytest.mark.parametrize("micro_batch_size", [1, 2, 5, 100])
def test_any_micro_batch_size_gives_the_same_gradient(micro_batch_size: int) -> None:
    assert_close(measured(micro_batch_size=micro_batch_size), measured())


def test_activation_checkpointing_gives_the_same_gradient() -> None:
    assert_close(measured(activation_checkpointing=True), measured())
    assert_close(measured(activation_checkpointing=True, micro_batch_size=2), measured())


def test_accumulation_that_a_launcher_asks_for_divides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    try:
        assert Accelerator(cpu=True).gradient_accumulation_steps == 4
        accumulated = measured(micro_batch_size=2)
    finally:
        monkeypatch.undo()
        Accelerator(cpu=True).gradient_accumulation_steps = 1
    assert_close(accumulated, measured())


def test_a_group_is_encoded_once_and_equals_its_pairs_apart() -> None:
    """The group form against the pair form: the same pairs, each in a batch of its own."""
    pairs = np.array([(2, i, j) for i, j in GROUPS[2].pairs()])
    labels = np.ones(len(pairs), dtype=np.float32)
    together = collate(pairs, labels)
    assert len(together.images) == 4
    accelerator = Accelerator(cpu=True)
    scorer, apart = small_model(), small_model()
    module = accelerator.prepare(ViewScores(scorer))
    backward(accelerator, module, read_share(together), objective("none"))
    other = accelerator.prepare(ViewScores(apart))
    for number in range(len(pairs)):
        alone = collate(pairs[number : number + 1], labels[:1])
        backward(accelerator, other, read_share(alone), objective("none"))
    summed = {name: gradient / len(pairs) for name, gradient in gradients(apart).items()}
    assert_close((0, gradients(scorer)), (0, summed))


def test_pairs_of_unusable_images_are_left_out() -> None:
    batch = whole_batch()
    share = read_share(batch)
    place = int(batch.better[0])
    broken = share._replace(
        usable=torch.tensor([i != place for i in range(len(batch.images))]),
        pixels=[
            torch.zeros(3, 1, 1, dtype=torch.uint8) if i == place else picture
            for i, picture in enumerate(share.pixels)
        ],
    )
    keep = (batch.better != place) & (batch.worse != place)
    fewer = batch._replace(
        better=batch.better[keep], worse=batch.worse[keep], label=batch.label[keep]
    )
    accelerator = Accelerator(cpu=True)
    results = []
    for given in (broken, share._replace(batch=fewer)):
        scorer = small_model()
        module = accelerator.prepare(ViewScores(scorer))
        found = backward(accelerator, module, given, objective(), micro_batch_size=2)
        assert found.pairs == int(keep.sum())
        results.append((float(found.objective.loss), gradients(scorer)))
    assert_close(*results)
    scores, usable = gathered_scores(accelerator, module, broken)
    assert scores[:, 0].isnan().nonzero().flatten().tolist() == [place]
    assert (~usable).nonzero().flatten().tolist() == [place]


def test_a_loss_that_is_not_finite_leaves_no_gradient() -> None:
    scorer = small_model()
    with torch.no_grad():
        scorer.model.visual.proj.fill_(torch.nan)
    accelerator = Accelerator(cpu=True)
    module = accelerator.prepare(ViewScores(scorer))
    found = backward(accelerator, module, read_share(whole_batch()), objective())
    assert not found.objective.loss.isfinite()
    assert not gradients(scorer)


def child(out: str, *micro_batch_sizes: str) -> None:
    """One of several processes: its share of the batch, and what came of it."""
    accelerator = Accelerator(cpu=True)
    share = read_share(
        whole_batch(), process=accelerator.process_index, processes=accelerator.num_processes
    )
    for size in micro_batch_sizes:
        scorer = small_model()
        module = accelerator.prepare(ViewScores(scorer))
        found = backward(
            accelerator, module, share, objective("margin"), micro_batch_size=int(size) or None
        )
        state = {"loss": found.objective.loss, "count": torch.tensor(accelerator.num_processes)}
        torch.save(state | gradients(scorer), f"{out}.{size}.{accelerator.process_index}")
    accelerator.end_training()


@pytest.mark.parametrize(
    ("processes", "micro_batch_sizes"),
    [(2, (0, 2)), (3, (1,))],
)
def test_processes_share_one_batch(
    tmp_path: Path, processes: int, micro_batch_sizes: tuple[int, ...]
) -> None:
    """The norm of DDP's average, undone: every process holds the gradient of the whole batch."""
    out = tmp_path / "gradients"
    launch(child, str(out), *map(str, micro_batch_sizes), processes=processes)
    expected = measured()
    for size, process in itertools.product(micro_batch_sizes, range(processes)):
        state = torch.load(f"{out}.{size}.{process}", weights_only=True)
        assert int(state.pop("count")) == processes
        assert_close((float(state.pop("loss")), state), expected)
