"""Training on cached tokens is the library's own training: loss, gradient, weights, measures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.ranked import ranked_groups
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.benchmarks.shapes.ablation.cells import Cell, Result
from stablepref.benchmarks.shapes.ablation.features import Cached, cache_groups, pool_boxes
from stablepref.benchmarks.shapes.ablation.measure import Data, variant_scores
from stablepref.benchmarks.shapes.ablation.methods import METHODS, method_config
from stablepref.benchmarks.shapes.ablation.train import (
    cached_backward,
    train_cell,
    view_columns,
)
from stablepref.data.groups import RankedGroup
from stablepref.evaluation.evaluate import evaluate
from stablepref.models.clip import CLIPScorer
from stablepref.recipes import TrainConfig
from stablepref.trainer import train
from stablepref.training.loader import ShareReader
from stablepref.training.pairs import PairBatches
from stablepref.training.resume import model_to_train
from stablepref.training.step import ViewScores, backward, objectives_of

GROUPS = [
    replace(group, images=tuple(map(Image.fromarray, group.images)))
    for group in ranked_groups(5, seed=3)
]
POOL, STEP = 4, 3
PERTURBATIONS = ("crop-0.9", "jpeg-50")


def cached(folder: Path, groups: list[RankedGroup], **options: object) -> Cached:
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    return cache_groups(tiny_clip(), groups, groups, path, trained=(1, 1), **options)  # type: ignore[arg-type] # options


def configured(name: str, *, order: bool = False) -> TrainConfig:
    config = method_config(
        METHODS[name], rate=1e-3, margins=(0.3, 0.2), steps=6, batch_size=7, seed=4,
        image_blocks=1, text_blocks=1,
    )  # fmt: skip
    order_steps = (6 if order else 0) if config.loss == "stable-preference" else 0
    return replace(config, order_steps=order_steps, views=min(config.views, POOL))


def gradients(model: CLIPScorer) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "order"),
    [("ce", False), ("ce-augmented", False), ("ce-ai", False), ("sp", True), ("sp", False),
     ("sp-through", False), ("sp-pairs", False)],
)  # fmt: skip
def test_a_step_has_the_librarys_loss_and_gradient(name: str, order: bool, tmp_path: Path) -> None:
    """The library encodes the same views of the same pairs from pixels, in whole towers."""
    config = configured(name, order=order)
    batch = PairBatches(
        GROUPS, batch_size=config.batch_size, batching=config.batching, seed=config.seed
    )[STEP]
    train_groups = cached(tmp_path, GROUPS, pool=POOL, seed=9)
    fast = model_to_train(tiny_clip(), config)
    assert isinstance(fast, CLIPScorer)
    found = cached_backward(fast, train_groups, batch, config, STEP)

    items = [int(train_groups.first[group]) + place for group, place in batch.images]
    columns = view_columns(items, config, pool=POOL, step=STEP)
    assert columns.shape == (len(items), 1 + config.views)
    assert (columns[:, 0] > 0).all() if config.augment else (columns[:, 0] == 0).all()
    boxes = torch.stack(
        [every[row] for every, row in zip(pool_boxes(items, POOL, seed=9), columns, strict=True)]
    )
    reader = ShareReader(GROUPS, process=0, processes=1, workers=0)
    _, share = next(reader.read([(STEP, batch)]))
    share = share._replace(boxes=boxes, flips=torch.zeros(boxes.shape[:2], dtype=torch.bool))
    plain = model_to_train(tiny_clip(), config)
    accelerator = Accelerator(cpu=True)
    expected = backward(
        accelerator, accelerator.prepare(ViewScores(plain)), share, objectives_of(config).at(STEP)
    )
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.objective.loss, expected.objective.loss, rtol=1e-4, atol=1e-5)
    assert found.pairs == expected.pairs == 7
    ours, theirs = gradients(fast), gradients(plain)
    assert (
        ours.keys() == theirs.keys() == {n for n, p in plain.named_parameters() if p.requires_grad}
    )
    for parameter, gradient in theirs.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(
            ours[parameter], gradient, rtol=1e-3, atol=2e-4 * size + 1e-8, msg=parameter
        )


def test_bf16_is_close_to_float32_and_scores_stay_wide(tmp_path: Path) -> None:
    config = configured("sp")
    batch = PairBatches(GROUPS, batch_size=config.batch_size, seed=config.seed)[STEP]
    train_groups = cached(tmp_path, GROUPS, pool=POOL, seed=9)
    found = {}
    for precision in ("no", "bf16"):
        model = model_to_train(tiny_clip(), config)
        assert isinstance(model, CLIPScorer)
        mixed = replace(config, mixed_precision=precision)
        result = cached_backward(model, train_groups, batch, mixed, STEP)
        assert result.scores.dtype == torch.float32
        assert all(gradient.dtype == torch.float32 for gradient in gradients(model).values())
        flat = torch.cat([gradient.flatten() for gradient in gradients(model).values()])
        found[precision] = result.scores, result.objective.loss, flat
    scores, loss, gradient = found["bf16"]
    assert not torch.equal(scores, found["no"][0])
    size = float(scores.abs().max())
    torch.testing.assert_close(scores, found["no"][0], rtol=0, atol=0.02 * size)
    torch.testing.assert_close(loss, found["no"][1], rtol=0.02, atol=0)
    assert torch.cosine_similarity(gradient, found["no"][2], dim=0) > 0.99


def test_a_training_is_the_librarys(tmp_path: Path) -> None:
    """Without views both see the same images: equal rates, batches and optimiser, equal scores."""
    config = replace(configured("ce"), steps=4, warmup_steps=1, checkpoint_every=4)
    (tmp_path / "tokens").mkdir()
    test = cached(tmp_path / "tokens", GROUPS[:3])
    data = Data(cached(tmp_path / "tokens", GROUPS, pool=1), test, {"hpdv2": test}, ())
    cell = Cell("large", "hpdv2", config, watched=(1, 2, 3, 4))
    found = Result(cell, train_cell(cell, tiny_clip(), data))
    config = replace(config, validate_every=1, log_every=1)
    out = tmp_path / "library"
    train(GROUPS, config, out=out, validation=GROUPS[:3], scorer=tiny_clip(), progress=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    checked = [row["validation_accuracy"] for row in rows if "validation_accuracy" in row]
    assert [row["people"] for row in found.watched] == pytest.approx(checked)
    for name in ("loss", "margin", "accuracy", "grad_norm", "pairs", "effective_pairs"):
        ours = [row[name] for row in found.watched]
        assert ours == pytest.approx([row[name] for row in steps], rel=1e-3, abs=1e-4), name
    assert len({row["loss"] for row in steps}) == 4


def test_measures_are_those_of_evaluate(tmp_path: Path) -> None:
    truth = [replace(group, ranks=tuple(range(len(group.images)))) for group in GROUPS]
    scorer = tiny_clip()
    test = cache_groups(
        scorer, GROUPS, truth, tmp_path / "t.npy", trained=(1, 1), perturbations=PERTURBATIONS
    )
    other = cache_groups(scorer, GROUPS[:2], GROUPS[:2], tmp_path / "o.npy", trained=(1, 1))
    learning = cache_groups(scorer, GROUPS, GROUPS, tmp_path / "l.npy", trained=(1, 1), pool=4)
    data = Data(learning, other, {"hpdv2": test, "imagereward": other}, PERTURBATIONS)
    config = configured("ce")
    cell = Cell("large", "hpdv2", config, watched=(0,), tested=(0,), disturbed=(0,))
    told: list[tuple[str, int]] = []
    result = Result(cell, train_cell(cell, scorer, data, advance=lambda *a: told.append(a)))
    people = evaluate(scorer, GROUPS, perturbations=PERTURBATIONS, progress=False)
    oracle = evaluate(scorer, truth, perturbations=PERTURBATIONS, progress=False)
    for report, name in ((people, "people"), (oracle, "oracle")):
        mean = result.tested(0, "hpdv2", name)
        assert mean is not None
        assert np.array_equal(mean.sums, report.pairwise.sums)
        assert np.array_equal(mean.counts, report.pairwise.counts)
    for row in oracle.disturbed:
        for name, expected in (("oracle", row.accuracy), ("flips", row.flips)):
            mean = result.disturbed(0, row.name, name)
            assert mean is not None
            assert np.array_equal(mean.sums, expected.sums)
    few = evaluate(scorer, GROUPS[:2], perturbations=[], progress=False).accuracy
    assert result.watched == [{"step": 0, "people": few, "oracle": few}]
    # As many training groups as validation has.
    fit = result.tested(0, "fit")
    assert fit is not None
    assert fit.value == few
    assert result.tested(1, "fit") is None
    images = sum(len(group.images) for group in GROUPS)
    few_images = sum(len(group.images) for group in GROUPS[:2])
    assert [count for _, count in told] == [few_images, images + 2 * few_images, 3 * images]


def test_scores_of_the_first_groups_are_those_of_all(tmp_path: Path) -> None:
    test = cached(tmp_path, GROUPS)
    every = variant_scores(tiny_clip(), test)
    some = variant_scores(tiny_clip(), test, groups=2)
    assert [len(scores) for scores in every] == [len(group.images) for group in GROUPS]
    assert all(map(np.allclose, some, every))
    assert len(some) == 2
    expected = tiny_clip().score(GROUPS[1].images, GROUPS[1].prompt, progress=False)
    assert np.allclose(every[1], expected, atol=1e-4)


def test_a_training_that_diverges_says_where_and_measures_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(configured("sp"), steps=4)
    test = cached(tmp_path, GROUPS)
    data = Data(cached(tmp_path, GROUPS, pool=POOL), test, {"hpdv2": test}, ())
    poisoned = tiny_clip()
    real = PairBatches.__getitem__

    def poison(batches: PairBatches, step: int) -> object:
        batch = real(batches, step)
        return batch._replace(label=batch.label * torch.nan) if step == 2 else batch

    monkeypatch.setattr(PairBatches, "__getitem__", poison)
    cell = Cell("large", "hpdv2", config, watched=(1, 2, 3, 4), tested=(4,))
    result = Result(cell, train_cell(cell, poisoned, data))
    assert result.found["diverged"] == 3
    assert [row["step"] for row in result.watched] == [1, 2]
    assert result.tested(4, "hpdv2", "oracle") is None


def test_equal_seeds_give_equal_results(tmp_path: Path) -> None:
    test = cached(tmp_path, GROUPS)
    data = Data(cached(tmp_path, GROUPS, pool=POOL), test, {"hpdv2": test}, ())
    start = tiny_clip()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    found = []
    for seed in (0, 0, 1):
        config = replace(configured("sp"), seed=seed)
        cell = Cell("large", "hpdv2", config, watched=(3,))
        found.append(train_cell(cell, start, data)["watched"])
    assert found[0] == found[1] != found[2]
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
