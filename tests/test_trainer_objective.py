"""A loss from outside: given to `train`, named by a package, or named on the command line."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.forked import command
from helpers.metrics import rows
from helpers.plugin import install_plugin
from helpers.ranked import SMALL, ranked_groups
from helpers.splits import make_split
from helpers.tiny import tiny_clip
from torch import Tensor

import stablepref
from stablepref.losses import Objective
from stablepref.recipes import LOSSES, TrainConfig, recipe
from stablepref.scorer import Scorer
from stablepref.trainer import train
from stablepref.training.pairs import PairBatches

CONFIG = replace(SMALL, steps=2, order_steps=0)
PLUGIN = """
def hinge(scores, better, worse, label):
    margin = scores[better, 0] - scores[worse, 0]
    return (2 - margin).relu().mean()

hinge.preference_scale = 0.5
no_function = 3
"""
ENTRIES = {"stablepref.losses": {"hinge": "hinge", "broken": "no_function"}}


def hinge(
    scores: Tensor, better: Tensor, worse: Tensor, label: Tensor, *, wanted: float = 2.0
) -> Tensor:
    del label
    return (wanted - scores[better, 0] + scores[worse, 0]).relu().mean()


def run(
    folder: Path,
    objective: Callable[..., Tensor | Objective] | None = None,
    config: TrainConfig = CONFIG,
    *,
    resume: bool = False,
) -> Scorer:
    return train(
        ranked_groups(), config, out=folder, scorer=tiny_clip(text_width=16), objective=objective,
        resume=resume, progress=False,
    )  # fmt: skip


def margins(scorer: Scorer, step: int) -> Tensor:
    """ΔS of a step's pairs, image by image."""
    groups = ranked_groups()
    batch = PairBatches(groups, batch_size=CONFIG.batch_size, seed=CONFIG.seed)[step]
    scores = [
        scorer.score(torch.from_numpy(groups[g].images[i]).permute(2, 0, 1) / 255, groups[g].prompt)
        for g, i in batch.images
    ]
    pairs = zip(batch.better.tolist(), batch.worse.tolist(), strict=True)
    return torch.stack([scores[i] - scores[j] for i, j in pairs])


def test_a_function_is_what_training_minimises(tmp_path: Path) -> None:
    trained = run(tmp_path, hinge)
    expected = [margins(tiny_clip(text_width=16), 0)]
    first = rows(tmp_path)[0]
    assert first["loss"] == pytest.approx(float((2 - expected[0]).relu().mean()), rel=1e-4)
    assert first["margin"] == pytest.approx(float(expected[0].mean()), abs=1e-3)
    assert first["weight"] == 1
    assert first["effective_pairs"] == first["pairs"] == 5
    built_in = run(tmp_path / "built in")
    weight = "model.visual.proj"
    assert not torch.equal(
        trained.state_dict()[weight], tiny_clip(text_width=16).state_dict()[weight]
    )
    assert not torch.equal(trained.state_dict()[weight], built_in.state_dict()[weight])


def test_it_sees_views_and_labels_of_the_whole_batch(tmp_path: Path) -> None:
    """Also where the images are encoded a few at a time; it may log margins of its own."""
    seen = []

    def spread(scores: Tensor, better: Tensor, worse: Tensor, label: Tensor) -> Objective:
        seen.append((scores.shape, scores.dtype, len(better), len(worse), label.tolist()))
        loss = scores.std(dim=1).mean()
        return Objective(loss, torch.full_like(label, 7.0), torch.full_like(label, 0.5))

    LOSSES.register("spread", spread)
    try:
        # Neither views nor soft ties go with a built-in cross-entropy.
        config = replace(
            CONFIG, loss="spread", anti_interference=False, ties="soft", views=2, batch_size=9,
            micro_batch_size=2,
        )  # fmt: skip
        run(tmp_path, config=config)
    finally:
        LOSSES.unregister("spread")
    groups = ranked_groups()
    batch = PairBatches(groups, batch_size=9, ties=True)[0]
    assert seen[0] == ((len(batch.images), 3), torch.float32, 9, 9, batch.label.tolist())
    assert 0.5 in seen[0][4]
    assert rows(tmp_path)[0]["margin"] == 7
    assert rows(tmp_path)[0]["weight"] == 0.5


def test_a_package_adds_one_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'stable-preference', 'cross-entropy' or 'uncertainty'"):
        recipe("sp-clip-h", loss="hinge")
    (tmp_path / "plugin").mkdir()
    install_plugin(tmp_path / "plugin", monkeypatch, PLUGIN, ENTRIES)
    named = run(tmp_path / "named", config=replace(CONFIG, loss="hinge"))
    given = run(tmp_path / "given", hinge)
    for name, value in given.state_dict().items():
        assert torch.equal(named.state_dict()[name], value), name
    assert named.preference_scale == 0.5
    assert '"loss": "hinge"' in (tmp_path / "named" / "last" / "README.md").read_text()
    with pytest.raises(ValueError, match="'cross-entropy', 'uncertainty', 'hinge' or 'broken'"):
        recipe("sp-clip-h", loss="mse")
    with pytest.raises(TypeError, match="the loss is 3; expected a function of scores, better"):
        run(tmp_path / "broken", config=replace(CONFIG, loss="broken"))
    assert not (tmp_path / "broken").exists()


def test_the_command_line_takes_it_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    (tmp_path / "plugin").mkdir()
    install_plugin(tmp_path / "plugin", monkeypatch, PLUGIN, ENTRIES)
    data = make_split(tmp_path / "train", [[1, 2, 3], [4, 5, 6]], [(1, 2, 2), (2, 1, 3)])
    arguments = [
        "train", "--data", data, "--model", model, "--out", tmp_path / "run",
        "--loss=hinge", "--steps=1", "--order-steps=0", "--warmup-steps=0", "--batch-size=3",
        "--image-blocks=1", "--text-blocks=1", "--views=0", "--mixed-precision=no", "--log-every=1",
    ]  # fmt: skip
    with command(*arguments, modules=tmp_path / "plugin") as process:
        process.wait(300)
        assert process.returncode == 0, process.stderr()
    groups = list(stablepref.read_groups(data))
    batch = PairBatches(groups, batch_size=3)[0]
    scorer = stablepref.load(model, dtype="float32")
    scores = [scorer.score(groups[g].images[i], groups[g].prompt) for g, i in batch.images]
    pairs = zip(batch.better.tolist(), batch.worse.tolist(), strict=True)
    expected = sum((2 - float(scores[i] - scores[j])) for i, j in pairs) / 3
    # `score` takes the exact preprocessing, training the differentiable one.
    assert rows(tmp_path / "run")[0]["loss"] == pytest.approx(expected, abs=0.05)


def test_another_loss_is_another_training(tmp_path: Path) -> None:
    near, far = partial(hinge, wanted=1.0), partial(hinge, wanted=3.0)
    trained = run(tmp_path, near)
    state = json.loads((tmp_path / "checkpoints" / "step-00000002" / "state.json").read_text())
    name = f"{hinge.__module__}.hinge"
    assert state["state"]["described"]["config"]["loss"] == f"{name}(wanted=1.0)"
    for other, is_now in ((far, f"{name}(wanted=3.0)"), (hinge, name), (None, "stable-preference")):
        with pytest.raises(ValueError, match="holds another training: loss was") as error:
            run(tmp_path, other, resume=True)
        assert f"loss was '{name}(wanted=1.0)', is '{is_now}'" in str(error.value)
    resumed = run(tmp_path, partial(hinge, wanted=1.0), resume=True)
    assert torch.equal(
        resumed.state_dict()["model.visual.proj"], trained.state_dict()["model.visual.proj"]
    )


def test_only_a_loss_that_says_so_trains_probabilities(tmp_path: Path) -> None:
    assert run(tmp_path / "built in").preference_scale == 1.0
    assert run(tmp_path / "outside", hinge).preference_scale is None
    assert stablepref.load(tmp_path / "outside" / "last").preference_scale is None


def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(tmp_path: Path) -> None:
    def diverging(scores: Tensor, better: Tensor, worse: Tensor, label: Tensor) -> Tensor:
        return scores.mean() * torch.inf

    with pytest.raises(FloatingPointError, match=r"the loss of step 1 is -?inf; its images: group"):
        run(tmp_path, diverging)
    assert not (tmp_path / "last").exists()
