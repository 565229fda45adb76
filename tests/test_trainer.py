"""Training: what it writes, refuses, leaves out and learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.metrics import rows
from helpers.ranked import SMALL, ranked_groups
from helpers.tiny import tiny_clip

import stablepref
from stablepref import trainer
from stablepref.data.groups import RankedGroup
from stablepref.models.clip import CLIPScorer
from stablepref.recipes import TrainConfig, recipe
from stablepref.trainer import train


def narrow() -> CLIPScorer:
    """A scorer that is trained and written quickly."""
    return tiny_clip(text_width=16)


def test_a_training_leaves_models_metrics_and_checkpoints(tmp_path: Path) -> None:
    start = narrow()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    trained = train(
        ranked_groups(),
        SMALL,
        out=tmp_path,
        validation=ranked_groups(seed=1),
        scorer=start,
        progress=False,
    )
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), f"the given scorer's {name} changed"
    moved = {n for n, v in trained.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {n for n, p in trained.named_parameters() if p.requires_grad}
    assert not trained.training
    last, best = (stablepref.load(tmp_path / name, dtype="float32") for name in ("last", "best"))
    for name, value in trained.state_dict().items():
        assert torch.equal(last.state_dict()[name], value)
    assert (last.name, last.preference_scale) == ("small", 1.0)
    assert best.name == "small"
    steps = [row for row in rows(tmp_path) if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].keys() >= {"accuracy", "margin", "weight", "grad_norm", "images_per_second"}
    # In the first step, of step 1, weights differ; in the last, of step 2, their mean is 1.
    assert all(1 <= row["effective_pairs"] <= row["pairs"] for row in steps)
    assert steps[-1]["weight"] == pytest.approx(1)
    assert steps[-1]["effective_pairs"] < 4.99
    assert [row["learning_rate"] for row in steps][:2] == [1e-3, 1e-3]
    checked = [row for row in rows(tmp_path) if "validation_accuracy" in row]
    assert [row["step"] for row in checked] == [2, 4, 6]
    highest = max(row["validation_accuracy"] for row in checked)
    assert f"| validation accuracy | {highest:.4f} |" in (tmp_path / "best/README.md").read_text()
    card = (tmp_path / "last/README.md").read_text()
    assert f"| validation accuracy | {checked[-1]['validation_accuracy']:.4f} |" in card
    assert "`small`, trained with stablepref from `tiny`, 6 of 6 steps" in card
    assert "clip-vit-h-14" not in card
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]


def test_the_best_model_has_the_accuracy_it_claims(tmp_path: Path) -> None:
    held_out = ranked_groups(8, seed=1)
    train(ranked_groups(), SMALL, out=tmp_path, validation=held_out, scorer=narrow())
    best = stablepref.load(tmp_path / "best")
    right = total = 0
    for group in held_out:
        # Float pixels take the differentiable preprocessing, as in training.
        images = [torch.from_numpy(i).permute(2, 0, 1) / 255 for i in group.images]
        scores = best.score(images, group.prompt)
        right += sum(bool(scores[i] > scores[j]) for i, j in group.pairs())
        total += len(group.pairs())
    claimed = max(r["validation_accuracy"] for r in rows(tmp_path) if "validation_accuracy" in r)
    assert claimed == pytest.approx(right / total)


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, batching="pairs"),
        replace(SMALL, crop_ratio=(3 / 4, 4 / 3), max_grad_norm=1.0),
        replace(SMALL, loss="cross-entropy", anti_interference=False, views=0, ties="soft"),
        replace(SMALL, loss="cross-entropy", anti_interference=False, views=0, augment=True),
        replace(SMALL, views=0, margin_weighting="inverse", detach_weights=False),
    ],
    ids=["pairs", "free crops", "soft ties", "augmented", "k = 0"],
)
def test_it_learns_what_it_is_shown(tmp_path: Path, config: TrainConfig) -> None:
    """Brighter is better: a rule that random weights do not know and any loss can teach."""
    rng = np.random.default_rng(0)
    groups = [
        RankedGroup(
            "a picture",
            tuple(np.full((64, 64, 3), v, np.uint8) for v in rng.permutation([30, 110, 190, 250])),
            (1, 2, 3, 4),
        )
        for _ in range(12)
    ]
    groups = [replace(g, ranks=tuple(-int(i[0, 0, 0]) for i in g.images)) for g in groups]
    config = replace(config, steps=24, order_steps=18, learning_rate=5e-3, batch_size=12)
    train(groups, config, out=tmp_path, scorer=narrow(), progress=False)
    accuracies = [row["accuracy"] for row in rows(tmp_path) if "loss" in row]
    assert np.mean(accuracies[-5:]) > 0.9


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    trained = [
        train(ranked_groups(), config, out=tmp_path / str(number), scorer=narrow())
        for number, config in enumerate((SMALL, SMALL, replace(SMALL, seed=1)))
    ]
    weights = [t.state_dict()["model.visual.proj"] for t in trained]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path) -> None:
    train(ranked_groups(), SMALL, out=tmp_path, scorer=narrow(), progress=False)
    with pytest.raises(ValueError, match="holds a training already; resume it"):
        train(ranked_groups(), SMALL, out=tmp_path, scorer=narrow(), progress=False)
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        train(ranked_groups(), replace(SMALL, seed=1), out=tmp_path, scorer=narrow(), resume=True)
    with pytest.raises(ValueError, match="the data differs"):
        train(ranked_groups(seed=5), SMALL, out=tmp_path, scorer=narrow(), resume=True)
    # What does not decide the weights may change.
    train(
        ranked_groups(),
        replace(SMALL, log_every=3, micro_batch_size=2),
        out=tmp_path,
        scorer=narrow(),
        resume=True,
        progress=False,
    )


def test_too_little_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 groups have 1 pairs of images of different rank"):
        train(ranked_groups(1), SMALL, out=tmp_path, scorer=narrow())


def test_half_precision_of_a_gpu_is_refused_on_a_cpu(tmp_path: Path) -> None:
    config = replace(SMALL, mixed_precision="fp16")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        train(ranked_groups(), config, out=tmp_path, scorer=narrow())


def test_bf16_trains_near_float32(tmp_path: Path) -> None:
    losses = []
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)
        config = replace(SMALL, mixed_precision=precision, steps=1, order_steps=1)
        train(ranked_groups(), config, out=tmp_path / precision, scorer=narrow())
        losses.append(rows(tmp_path / precision)[0]["loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_the_bundled_model_trains_by_name(tmp_path: Path) -> None:
    config = recipe("sp-shapes", steps=1, order_steps=0, warmup_steps=0, batch_size=4)
    trained = train(ranked_groups(), config, out=tmp_path, progress=False)
    assert trained.name == "sp-shapes"
    assert trained.dtype == torch.float32
    assert stablepref.load("shapes").name == "shapes"


def test_tensorboard_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = replace(SMALL, log_with="tensorboard", steps=2)
    train(ranked_groups(), config, out=tmp_path, scorer=narrow(), progress=False)
    assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.parametrize(("start", "bound"), [(9.0, 4.6051702), (-3.0, 0.0)])
def test_the_logit_scale_is_kept_within_its_bounds(
    tmp_path: Path, start: float, bound: float
) -> None:
    """The bounds are ln 100 and 0."""
    scorer = narrow()
    with torch.no_grad():
        scorer.model.logit_scale.fill_(start)
    config = replace(SMALL, steps=1, order_steps=1)
    trained = train(ranked_groups(), config, out=tmp_path, scorer=scorer, progress=False)
    assert trained.state_dict()["model.logit_scale"].item() == pytest.approx(bound, abs=1e-6)


def test_speed_counts_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only validation moves, training takes no time."""
    now = [0.0]

    def slow(*_: object, **__: object) -> float:
        now[0] += 1000
        return 0.5

    def tick() -> float:
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(trainer, "validation_accuracy", slow)
    monkeypatch.setattr("stablepref.training.log.time.monotonic", tick)
    config = replace(SMALL, log_every=2, validate_every=1)
    train(ranked_groups(), config, out=tmp_path, validation=ranked_groups(2), scorer=narrow())
    # Of a step the clock sees its begin and its end, one tick; each image has 2 views beside it.
    for row in (row for row in rows(tmp_path) if "loss" in row):
        assert 2 * 3 * 4 <= row["images_per_second"] <= 2 * 3 * 10
