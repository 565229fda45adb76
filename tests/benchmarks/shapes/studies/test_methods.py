"""The study of methods at equal pictures, with a tiny pipeline of random weights."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from helpers.tiny_lab_pipeline import tiny_pipeline
from helpers.typed import refused
from PIL import Image

from stablepref.benchmarks.shapes.oracle.grading import Grade
from stablepref.benchmarks.shapes.pipeline.parts import save_pipeline
from stablepref.benchmarks.shapes.pipeline.sampling import Sample
from stablepref.benchmarks.shapes.studies import methods, methods_choice, methods_summary
from stablepref.benchmarks.shapes.studies.methods import changes_of, config_of, main
from stablepref.benchmarks.shapes.studies.methods_choice import Choice, choices
from stablepref.benchmarks.shapes.studies.methods_summary import outcomes, spent
from stablepref.benchmarks.shapes.world.prompts import LabPrompt, lab_prompts
from stablepref.data.groups import RankedGroup
from stablepref.data.write import write_jsonl
from stablepref.models.function import FunctionScorer
from stablepref.output.partial import ResumeError

SMALL = [
    f"{method}.{field}={value}"
    for method in ("nft", "draft")
    for field, value in {"batch_size": 2, "sampling_steps": 2, "learning_rate": 0.1}.items()
] + [
    "nft.pictures_per_prompt=2",
    "nft.nft_timesteps=1",
    "draft.last_steps=1",
    "draft.rank=2",
    "dpo-paper.batch_size=2",
    "dpo-paper.dpo_order_steps=1",
    "dpo-paper.learning_rate=0.1",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A small study: of all weights, of LoRA matrices, and of ranked groups."""
    folder = tmp_path_factory.mktemp("methods")
    pictures = drawn_files(folder)
    ranked = [RankedGroup(f"a {file.stem} circle", pictures, (2, 1)) for file in pictures]
    write_jsonl(folder / "groups.jsonl", ranked)
    save_pipeline(tiny_pipeline(), folder / "pipeline")
    few = lambda split="test", *, per_category=1: lab_prompts(split, per_category=1)[:2]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "lab_prompts", few)
        patch.setattr(methods, "JUDGE", str(model))
        patch.setattr(methods, "VALIDATION_STEPS", 2)
        for _ in range(2):  # the second time everything is there
            main(
                out=folder / "study",
                pipeline=folder / "pipeline",
                reward=str(model),
                method=["nft", "draft", "dpo-paper"],
                data=folder / "groups.jsonl",
                seed=[3],
                pictures=4,
                every=2,
                change=SMALL,
                train_per_category=1,
                per_category=1,
                choose=True,
                guidance=1.5,
                test_steps=2,
                test_pictures=3,
                device="cpu",
                threads=None,
            )
            AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "study"


def drawn_files(folder: Path) -> tuple[Path, ...]:
    """Two pictures."""
    files = folder / "red.png", folder / "blue.png"
    for file in files:
        Image.new("RGB", (64, 64), file.stem).save(file)
    return files


def test_each_method_draws_as_many_pictures(whole: Path) -> None:
    report = json.loads((whole / "study.json").read_text())
    assert [(one["arm"], one["seed"]) for one in report["trainings"]] == [
        ("nft", 3), ("draft", 3), ("dpo-paper", 3),
    ]  # fmt: skip
    for one in report["trainings"]:
        assert one["pictures"] == 2 * one["step"]
        assert (one["test"]["prompts"], one["test"]["trials"]) == (2, 6)
    rows = [json.loads(line) for line in (whole / "rows.jsonl").read_text().splitlines()[1:]]
    assert [(row["arm"], row["step"]) for row in rows] == [
        ("base", 0), ("nft", 1), ("nft", 2), ("draft", 1), ("draft", 2),
        ("dpo-paper", 1), ("dpo-paper", 2),
    ]  # fmt: skip
    assert len({row["reward"] for row in rows}) == 7, "each has weights of its own"
    settings = [
        json.loads((whole / name).read_text().splitlines()[0])["settings"]
        for name in ("rows.jsonl", "test.jsonl")
    ]
    assert settings[0]["drawn"] == [2, 1.5, 1]
    assert [settings[1][name] for name in ("steps", "guidance", "pictures")] == [2, 1.5, 3]
    with Image.open(whole / "study.png") as figure:
        assert figure.width > 2 * figure.height


def test_choosing_among_as_many_pictures(whole: Path) -> None:
    """Of two prompts and four pictures two of each: the mean of one, and the one of more reward."""
    one, two = json.loads((whole / "study.json").read_text())["choices"]
    rows = [json.loads(line) for line in (whole / "choice.jsonl").read_text().splitlines()[1:]]
    assert [(one["n"], one["pictures"]), (two["n"], two["pictures"])] == [(1, 2), (2, 4)]
    assert [len(row["scores"]) for row in rows] == [2, 2]
    assert len({score for row in rows for score in row["scores"]}) == 4, "each has other noise"
    means = [sum(row["corrects"]) / 2 for row in rows]
    best = [row["corrects"][row["scores"].index(max(row["scores"]))] for row in rows]
    assert one["correct"]["value"] == pytest.approx(sum(means) / 2)
    assert two["correct"]["value"] == pytest.approx(sum(best) / 2)
    assert two["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert one["seconds"] == pytest.approx(two["seconds"] / 2)


def test_the_curve_of_choosing_is_of_its_own_numbers(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reward finds the right picture of five, which is the last one of each prompt."""
    save_pipeline(tiny_pipeline(), tmp_path / "pipeline")
    asked: list[dict[str, object]] = []

    def drawn(pipe: object, prompts: list[LabPrompt], **given: object) -> list[Sample]:
        asked.append({"prompt": prompts[0].prompt, **given})
        return [
            Sample(
                prompts[0],
                np.full((64, 64, 3), 50 * number, dtype=np.uint8),
                Grade(count=number == 4, colour=True, shape=True),
            )
            for number in range(5)
        ]

    monkeypatch.setattr(methods_choice, "sample_prompts", drawn)
    light = FunctionScorer(
        lambda images, prompts: [float(np.asarray(image).mean()) for image in images],
        name="light",
        unit="grey",
    )
    prompts = lab_prompts("test", per_category=1)[:3]

    def chosen(guidance: float) -> list[Choice]:
        return choices(
            tmp_path / "pipeline", light, tmp_path, prompts, pictures=17, steps=2, guidance=guidance
        )

    found = chosen(1.5)
    assert [(one.n, one.pictures) for one in found] == [(1, 3), (2, 6), (4, 12), (5, 15)]
    assert [one.correct.value for one in found] == pytest.approx([1 / 5, 2 / 5, 4 / 5, 1])
    each = {"pictures": 5, "steps": 2, "guidance": 1.5, "quiet": True}
    assert asked == [
        {"prompt": one.prompt, "seed": place, **each} for place, one in enumerate(prompts)
    ]
    assert chosen(1.5) == found
    assert len(asked) == 3, "nothing is drawn again"
    with pytest.raises(ResumeError):
        chosen(2.0)


def test_time_and_pictures_are_read_from_the_metrics(whole: Path) -> None:
    arm = next(
        one
        for one in [methods.Arm("nft", None, 0, config_of("nft", 4, 2, changes_of(SMALL)["nft"]))]  # type: ignore[arg-type] # no scorer is needed
    )
    lines = (whole / "nft-3" / "metrics.jsonl").read_text().splitlines()
    speeds = [row["images_per_second"] for row in map(json.loads, lines) if "loss" in row]
    pictures, seconds = spent(arm, whole / "nft-3", 1)
    assert pictures == 2
    assert seconds == pytest.approx(2 / speeds[0])


def test_test_pictures_are_graded_prompt_by_prompt(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pictures of each: of the first prompt right, wrong, right, of the second all wrong."""
    verdicts = [True, False, True, False, False, False]
    asked: list[dict[str, Any]] = []

    def drawn(pipe: object, prompts: object, **options: Any) -> list[Any]:  # noqa: ANN401 (of many types)
        asked.append(options)
        return [SimpleNamespace(grade=SimpleNamespace(correct=one)) for one in verdicts]

    monkeypatch.setattr(methods_summary, "sample_prompts", drawn)
    rows = [{"arm": "base", "seed": 0, "step": 0, "correct": 0.5}]
    folder = whole / "again"
    folder.mkdir()
    prompts = lab_prompts("test", per_category=1)[:2]
    (base,) = outcomes(
        whole.parent / "pipeline", [], rows, folder, prompts, steps=7, guidance=1.5, pictures=3
    )
    assert asked == [{"steps": 7, "guidance": 1.5, "pictures": 3}]
    assert base.test.value == pytest.approx(1 / 3)
    assert (base.test.prompts, base.test.trials) == (2, 6)


def test_the_best_step_by_validation_is_tested(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 1 and 2 are equally good: the earlier. A training that only got worse is the start."""
    configs = {name: config_of(name, 4, 2, changes_of(SMALL)[name]) for name in ("nft", "draft")}
    arms = [methods.Arm(name, None, 0, config) for name, config in configs.items()]  # type: ignore[arg-type] # no scorer is needed
    values = {
        ("base", 0): 0.5,
        ("nft", 1): 0.6,
        ("nft", 2): 0.6,
        ("draft", 1): 0.4,
        ("draft", 2): 0.5,
    }
    rows = [
        {"arm": arm, "seed": 0 if arm == "base" else 3, "step": step, "correct": value}
        for (arm, step), value in values.items()
    ]
    tested: list[Any] = []

    def graded(
        pipeline: object, arms: object, jobs: list[Any], *rest: object
    ) -> list[list[list[float]]]:
        tested.extend((job["arm"], job["step"]) for job in jobs)
        return [[[0], [1]], [[1], [1]], [[0], [1]]]

    monkeypatch.setattr(methods_summary, "_tested", graded)
    base, nft, draft = outcomes(whole, arms, rows, whole, [])
    assert tested == [("base", 0), ("nft", 1), ("draft", 0)]
    assert (base.test.value, nft.test.value, nft.gain.value, draft.gain.value) == (0.5, 1, 0.5, 0)
    assert (nft.pictures, draft.pictures, draft.seconds) == (2, 0, 0)


def test_settings_are_checked_before_anything_is_drawn(tmp_path: Path) -> None:
    config = config_of("nft", 100, 50, {"batch_size": 48})
    assert (config.steps, config.sample_every) == (3, 2), "whole steps"
    for change, told in (
        ("learning_rate=1", "METHOD.FIELD=VALUE"),
        ("ppo.learning_rate=1", "a method of nft, grpo, ddpo, draft, dpo"),
        ("nft.rate=1", "unknown rate"),
        ("nft.learning_rate=-1", "learning_rate is -1"),
        ("nft.steps=5", "steps follows from --pictures"),
        ("draft.learning_rate=1e-3", "--set is of draft, which no --method names"),
    ):
        assert told in refused(main, "--out", tmp_path / "out", "--set", change)
    for options, told in (
        (("--method", "nft", "--method", "draft"), "draft needs a reward with a gradient"),
        (("--seed", "0", "--seed", "-1"), "should be greater than or equal to 0"),
        (("--method", "dpo"), "dpo trains on ranked groups; give --data"),
        (("--data", __file__), "--data is for the methods dpo and dpo-paper"),
        (("--method", "dpo", "--data", __file__), "test_methods.py"),
    ):
        assert told in refused(main, "--out", tmp_path / "out", *options)
    assert "there is no method 'ppo'" in refused(main, "--out", tmp_path / "out", "--method", "ppo")
    assert not (tmp_path / "out").exists()
