"""HPS v3 in training: matrices of low rank, both kinds of losses, and a training that is killed."""

import json
import math
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.forked import start
from helpers.ranked import ranked_groups
from helpers.tiny import tiny_clip
from helpers.tiny_hps_v3 import tiny_hps_v3
from torch import nn

import stablepref
from stablepref.models.hps_v3 import HPSv3Scorer
from stablepref.models.lora import merged
from stablepref.recipes import TrainConfig, recipe
from stablepref.trainer import train
from stablepref.training.log import batch_metrics
from stablepref.training.resume import model_to_train
from stablepref.training.step import StepResult

LORA = TrainConfig(
    name="tiny-lora",
    steps=2,
    order_steps=1,
    warmup_steps=0,
    batch_size=2,
    learning_rate=1e-2,
    image_blocks=0,
    text_blocks=0,
    lora_rank=2,
    views=1,
    checkpoint_every=1,
    log_every=1,
    workers=1,
    mixed_precision="no",
)
PLAIN = {"anti_interference": False, "views": 0, "order_steps": 0}
UNCERTAIN = replace(LORA, name="uncertain", loss="uncertainty", **PLAIN)
GREY = [np.full((60, 60, 3), value, np.uint8) for value in (250, 10)]


def test_matrices_and_head_are_trained_and_nothing_else() -> None:
    scorer = tiny_hps_v3()
    model = model_to_train(scorer, LORA)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    outside = [name for name in names if not name.startswith("head.")]
    assert len(names) - len(outside) == len(list(scorer.head.parameters()))
    assert all(
        "language_model.layers." in n and (".lora_A." in n or ".lora_B." in n) for n in outside
    )
    layers = [part for part in scorer.body.language_model.layers.modules()
              if isinstance(part, nn.Linear)]  # fmt: skip
    assert len(outside) == 2 * len(layers) == 2 * 7 * 3
    assert torch.equal(model.score(GREY, "a fox"), scorer.score(GREY, "a fox"))
    assert all(weight.requires_grad for weight in scorer.parameters())  # left as it was


def test_merged_matrices_are_added_as_by_hand() -> None:
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]])
    state = {
        "a.base_layer.weight": torch.eye(2),
        "a.base_layer.bias": torch.ones(2),
        "a.lora_A.default.weight": first,
        "a.lora_B.default.weight": second,
        "b.weight": torch.zeros(1),
    }
    found = merged(state)
    assert sorted(found) == ["a.bias", "a.weight", "b.weight"]
    assert found["a.weight"].tolist() == [[7.0, 12.0], [0.0, 1.0]]  # alpha is twice the rank


def rows_of(folder: Path) -> list[dict[str, float]]:
    """What a training logged, without its speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[HPSv3Scorer, Path]:
    """A training with the paper's losses, at once, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    model = train(ranked_groups(), LORA, out=folder, scorer=tiny_hps_v3(), progress=False)
    assert isinstance(model, HPSv3Scorer)
    return model, folder


def test_the_saved_model_needs_no_matrices(trained: tuple[HPSv3Scorer, Path]) -> None:
    model, folder = trained
    loaded = stablepref.load(folder / "last", dtype="float32")
    assert loaded.state_dict().keys() == tiny_hps_v3().state_dict().keys()
    assert torch.allclose(loaded.score(GREY, "a fox"), model.score(GREY, "a fox"), atol=1e-4)
    before = tiny_hps_v3()
    moved = {
        k for k, v in loaded.state_dict().items() if not torch.equal(v, before.state_dict()[k])
    }
    assert any(key.startswith("body.language_model.layers.2.mlp") for key in moved)
    assert not any("visual" in key or "embed_tokens" in key for key in moved)


@pytest.mark.parametrize("change", [{"micro_batch_size": 1}, {"activation_checkpointing": True}])
def test_the_same_losses_and_gradients_with_less_memory(
    change: dict[str, int | bool], trained: tuple[HPSv3Scorer, Path], tmp_path: Path
) -> None:
    config = replace(LORA, **change)
    train(ranked_groups(), config, out=tmp_path, scorer=tiny_hps_v3(), progress=False)
    for found, expected in zip(rows_of(tmp_path), rows_of(trained[1]), strict=True):
        assert found == pytest.approx(expected, rel=2e-3)
        assert expected["grad_norm"] > 0


def test_losses_on_the_mean_leave_the_deviations_behind(trained: tuple[HPSv3Scorer, Path]) -> None:
    """They were not trained with the new scores: probabilities are of the mean alone."""
    model, _ = trained
    assert not model.predicts_uncertainty
    found = model.compare(*GREY, "a fox")
    assert found.uncertainty is None
    assert found.probability == pytest.approx(1 / (1 + math.exp(-found.margin)), abs=1e-5)


def test_its_own_loss_trains_deviations(tmp_path: Path) -> None:
    """Both outputs of the head move, and the loss falls on the pairs that it sees."""
    config = replace(UNCERTAIN, steps=4, batch_size=3, learning_rate=3e-3, checkpoint_every=4)
    before = tiny_hps_v3()
    model = train(ranked_groups(2), config, out=tmp_path, scorer=before, progress=False)
    assert model.predicts_uncertainty
    assert model.compare(*GREY, "a fox").uncertainty is not None
    for row in (0, 1):
        assert not torch.equal(model.head[5].weight[row], before.head[5].weight[row])
    rows = rows_of(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["accuracy"] == pytest.approx(accuracy_of(before), abs=0.26)


def accuracy_of(scorer: HPSv3Scorer) -> float:
    """Share of the untied pairs in the right order."""
    right = []
    for group in ranked_groups(2):
        scores = scorer.score(list(group.images), group.prompt)
        right += [float(scores[i] > scores[j]) for i, j in group.pairs()]
    return sum(right) / len(right)


def test_what_cannot_be_trained_so_is_refused(tmp_path: Path) -> None:
    plain = replace(UNCERTAIN, lora_rank=None)
    with pytest.raises(ValueError, match=r"trains standard deviations .* tiny predicts none"):
        train(ranked_groups(), plain, out=tmp_path, scorer=tiny_clip())
    with pytest.raises(ValueError, match="tiny-lora has no place for matrices of rank 2"):
        train(ranked_groups(), LORA, out=tmp_path, scorer=tiny_clip())


def test_whole_blocks_are_trained_without_matrices() -> None:
    config = replace(LORA, lora_rank=None, image_blocks=1, text_blocks=1)
    model = model_to_train(tiny_hps_v3(), config)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any(name.startswith("body.visual.blocks.1.") for name in names)
    assert any(name.startswith("body.language_model.layers.2.") for name in names)
    assert {"body.visual.merger.ln_q.weight", "body.language_model.norm.weight"} < names
    assert not any("layers.1." in name or "blocks.0." in name or "embed" in name for name in names)


def test_recipes() -> None:
    for name in ("sp-hps-v3", "ce-hps-v3"):
        config = recipe(name)
        assert (config.model, config.image_blocks, config.text_blocks) == ("hps-v3", 0, 0)
        assert config.lora_rank


def test_stopped_and_resumed_to_the_same_weights(
    trained: tuple[HPSv3Scorer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(result: StepResult) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        return batch_metrics(result)

    monkeypatch.setattr("stablepref.trainer.batch_metrics", stopped)
    with pytest.raises(SystemExit):
        train(ranked_groups(), LORA, out=tmp_path, scorer=tiny_hps_v3(), progress=False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    train(ranked_groups(), LORA, out=tmp_path, scorer=tiny_hps_v3(), resume=True, progress=False)
    one, other = (f / "last" / "model.safetensors" for f in (tmp_path, trained[1]))
    assert one.read_bytes() == other.read_bytes()


KILLED = replace(UNCERTAIN, steps=5)


def run(folder: Path) -> None:
    train(ranked_groups(), KILLED, out=folder, scorer=tiny_hps_v3(), resume=True, progress=False)


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_weights(tmp_path: Path) -> None:
    tiny_hps_v3()  # built once, for the children
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(run, whole)
    process.join()
    assert process.exitcode == 0
    process = start(run, broken)
    while process.is_alive() and not list(broken.glob("checkpoints/step-0000000[2-4]")):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = start(run, broken)
    process.join()
    assert process.exitcode == 0
    one, other = (f / "last" / "model.safetensors" for f in (whole, broken))
    assert one.read_bytes() == other.read_bytes()
