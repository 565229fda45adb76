"""The study of fine-tuning in the laboratory, with a tiny pipeline of random weights."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.tiny import tiny_clip
from helpers.tiny_lab_pipeline import TINY
from helpers.typed import refused
from PIL import Image

from stablepref.benchmarks.shapes.oracle.grading import grade
from stablepref.benchmarks.shapes.pipeline.parts import (
    assemble,
    build_autoencoder,
    build_denoiser,
    build_text_encoder,
    save_pipeline,
)
from stablepref.benchmarks.shapes.pipeline.sampling import Sample
from stablepref.benchmarks.shapes.studies import finetune_runs
from stablepref.benchmarks.shapes.studies.finetune import arms_of, main
from stablepref.benchmarks.shapes.studies.finetune_runs import Arm, HeldOut, study_rows
from stablepref.benchmarks.shapes.studies.finetune_summary import at_gain, summarise
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.integrations.finetune.config import FinetuneConfig

CONFIG = FinetuneConfig(
    steps=2,
    batch_size=2,
    sampling_steps=2,
    guidance=1.0,
    learning_rate=0.1,
    samples=1,
    monitor_views=1,
    sample_every=1,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "pipeline"
    pipe = assemble(
        build_autoencoder(TINY, seed=0),
        build_text_encoder(TINY, seed=0),
        build_denoiser(TINY, seed=0),
    )
    save_pipeline(pipe, folder)
    return folder


def study(pipeline: Path, out: Path, arms: list[Arm]) -> list[dict[str, Any]]:
    return study_rows(
        pipeline,
        arms,
        out,
        train_prompts=["a red circle", "a blue square"],
        held_out=HeldOut(lab_prompts("test", per_category=1)[:2], tiny_clip(), 2, 1.0),
        seeds=(3,),
        quiet=True,
    )


@pytest.fixture(scope="module")
def whole(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A small study in a folder, and its rows."""
    folder = tmp_path_factory.mktemp("study")
    rows = study(pipeline, folder, [Arm("robust", tiny_clip(), 1, CONFIG)])
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, rows


def test_rows_of_every_arm_seed_and_step(whole: tuple[Path, list[Any]], pipeline: Path) -> None:
    folder, rows = whole
    order = [(row["arm"], row["seed"], row["step"]) for row in rows]
    assert order == [("base", 0, 0), ("robust", 3, 1), ("robust", 3, 2)]
    assert len({row["reward"] for row in rows}) == len(rows), "each has weights of its own"
    for row in rows:
        assert row["reward"] == pytest.approx(sum(row["rewards"]) / 2)
        assert row["correct"] == pytest.approx(sum(row["corrects"]) / 2)
    sheets = {path.name for path in folder.glob("*.png")}
    assert sheets == {"base-0.png", "robust-3.png"}
    with pytest.raises(ValueError, match="choose another"):
        study(pipeline, folder, [Arm("plain", tiny_clip(), 0, CONFIG)])


@pytest.mark.slow
def test_a_broken_study_goes_on(
    whole: tuple[Path, list[Any]],
    pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = [Arm("robust", tiny_clip(), 1, CONFIG)]
    measure, calls = finetune_runs._measured, 0

    def breaking(*given: object) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return measure(*given)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(finetune_runs, "_measured", breaking)
    with pytest.raises(KeyboardInterrupt):
        study(pipeline, tmp_path, arms)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"arm": "pl')  # killed while it wrote
    monkeypatch.setattr(finetune_runs, "_measured", measure)
    assert study(pipeline, tmp_path, arms) == whole[1]


def row(arm: str, seed: int, reward: float, corrects: list[float]) -> dict[str, Any]:
    correct = sum(corrects) / len(corrects)
    return {"arm": arm, "seed": seed, "step": 1, "reward": reward, "robust": reward - 0.1,
            "correct": correct, "corrects": corrects}  # fmt: skip


def test_summaries_by_hand() -> None:
    """Robust gains 1 in both seeds, plain 2 and 4; at a gain of 1 plain lost a half of its loss."""
    rows = [
        row("base", 0, 5.0, [1, 0]),
        row("plain", 0, 7.0, [0, 0]),
        row("plain", 1, 6.0, [1, 0]),
        row("plain", 1, 9.0, [0, 0]),
        row("robust", 0, 6.0, [1, 1]),
        row("robust", 1, 6.5, [1, 0]),
        row("robust", 1, 6.0, [1, 1]),
    ]
    plain, robust = summarise(rows)
    assert (plain.arm, robust.arm) == ("plain", "robust")
    assert plain.reward_gains == [2, 4]
    assert plain.correct_changes == [-0.5, -0.5]
    assert plain.correct_change.value == -0.5
    assert plain.correct_at_equal_gain == pytest.approx([-0.25, 0])
    assert robust.reward_gains == [1, 1]
    assert robust.correct_at_equal_gain == pytest.approx([0.5, 0])
    assert robust.gap_changes == pytest.approx([0, 0])
    assert json.dumps([asdict(plain), asdict(robust)])


def test_without_a_common_gain_nothing_is_compared() -> None:
    rows = [row("base", 0, 5.0, [1]), row("plain", 0, 7.0, [0]), row("robust", 0, 4.0, [1])]
    assert [one.correct_at_equal_gain for one in summarise(rows)] == [[], []]


def test_a_gain_is_met_between_measurements() -> None:
    curve = [(1.0, 0.2), (0.5, 0.0), (2.0, -0.4)]
    assert at_gain(curve, 0.5) == pytest.approx(0.1)
    assert at_gain(curve, 1.0) == pytest.approx(0.2)
    assert at_gain(curve, 1.25) == pytest.approx(-0.2)
    with pytest.raises(ValueError, match=r"the gain is 3\.0; expected at most 2\.0"):
        at_gain(curve, 3.0)


def test_arms() -> None:
    arms = arms_of(tiny_clip(), [], [], CONFIG, views=3)
    assert [(arm.name, arm.views) for arm in arms] == [("plain", 0), ("robust", 3)]


def test_the_ensemble_weighs_scorers_alike_whatever_their_units() -> None:
    """The untrained scorers have no log-odds; the second one's scores are ten times as large."""
    first = tiny_clip(preference_scale=None)
    second = tiny_clip(preference_scale=None, name="second")
    with torch.no_grad():
        second.model.visual.proj.copy_(second.model.visual.proj.flip(1))
        second.model.logit_scale += math.log(10)
    rng = np.random.default_rng(0)
    reference = [
        Sample(prompt, picture, grade(picture, prompt.scene))
        for prompt in lab_prompts("train", per_category=1)[:2]
        for picture in rng.integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    ]
    (*_, ensemble) = arms_of(first, [second], reference, CONFIG, views=3)
    assert (ensemble.name, ensemble.scorer.name) == ("ensemble", "tiny+second")
    pictures = [sample.picture for sample in reference]
    prompts = [sample.prompt.prompt for sample in reference]
    each = np.stack([one.score(pictures, prompts).numpy() for one in (first, second)])
    within = each.reshape(2, 2, 3) - each.reshape(2, 2, 3).mean(axis=2, keepdims=True)
    units = np.sqrt((within**2).sum(axis=(1, 2)) / 4)
    expected = ((each - each.mean(axis=1, keepdims=True)) / units[:, None]).mean(axis=0)
    np.testing.assert_allclose(ensemble.scorer.score(pictures, prompts), expected, atol=2e-4)


@pytest.mark.slow
def test_the_command_writes_table_numbers_and_figure(
    pipeline: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {
        "pipeline": pipeline, "model": str(model), "other": [str(model)], "seed": [0], "steps": 1,
        "batch_size": 2, "sample_every": 1, "sampling_steps": 2, "guidance": 1.0, "views": 1,
        "split": "test", "train_per_category": 1, "per_category": 1, "learning_rate": 0.1,
        "last_steps": 1, "pictures": 1, "device": "cpu", "threads": None, "rank": 0, "ema": 0.5,
    }  # fmt: skip
    main(out=tmp_path, method="draft", **options)
    shown = capsys.readouterr().out
    assert "ensemble" in shown
    report = json.loads((tmp_path / "study.json").read_text())
    assert [arm["arm"] for arm in report["arms"]] == ["plain", "robust", "ensemble"]
    assert report["config"]["sampling_steps"] == 2
    assert (report["config"]["rank"], report["config"]["ema"]) == (0, 0.5)
    assert list(report["signs"]) == ["plain-0", "robust-0", "ensemble-0"]
    for name, signs in report["signs"].items():
        assert json.loads((tmp_path / name / "finetune.json").read_text())["signs"] == signs
        assert f"{name}: {'; '.join(signs) or 'no sign of reward hacking'}" in shown
    with Image.open(tmp_path / "study.png") as figure:
        assert figure.width > 2 * figure.height


def test_settings_are_checked_before_anything_is_drawn(tmp_path: Path) -> None:
    for option, value in (("--ema", "1"), ("--last-steps", "20"), ("--learning-rate", "-1")):
        field = option.removeprefix("--").replace("-", "_")
        assert f"{field} is {value}" in refused(main, "--out", tmp_path / "out", option, value)
    assert "dpo trains on ranked" in refused(main, "--out", tmp_path / "out", "--method", "dpo")
    assert "should be greater than or equal to 0" in refused(
        main, "--out", tmp_path / "out", "--seed", "-1"
    )
    told = refused(main, "--out", tmp_path / "out", "--method", "ppo")
    assert "'ppo' is not one of 'draft', 'refl', 'ddpo'" in told
    assert not (tmp_path / "out").exists()
