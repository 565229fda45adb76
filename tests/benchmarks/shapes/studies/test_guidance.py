"""The measurement of guidance on a tiny random pipeline of the laboratory's architecture."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.killed import Killed
from helpers.tiny import tiny_clip
from helpers.tiny_lab_pipeline import tiny_pipeline
from PIL import Image

from stablepref.benchmarks.shapes.oracle.grading import grade
from stablepref.benchmarks.shapes.pipeline.parts import (
    save_pipeline,
)
from stablepref.benchmarks.shapes.studies import guidance_pictures
from stablepref.benchmarks.shapes.studies.guidance import MEASURES, curve, main
from stablepref.benchmarks.shapes.studies.guidance_pictures import Setting, guided_rows, settings_of
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.output.partial import ResumeError

PROMPTS = lab_prompts(per_category=1)[:2]
SETTINGS = [Setting(0, 0.0), Setting(0, 0.05), Setting(2, 0.05)]


def rows_of(folder: Path, *, seed: int = 0, settings: list[Setting] | None = None) -> list[dict]:
    return guided_rows(
        tiny_pipeline(),
        tiny_clip(),
        PROMPTS,
        settings or SETTINGS,
        folder,
        pictures=2,
        steps=3,
        seed=seed,
        batch_size=3,
        progress=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("curve")
    return folder, rows_of(folder)


def test_every_setting_draws_every_prompt_from_the_same_noise(
    made: tuple[Path, list[dict]],
) -> None:
    folder, rows = made
    expected = [
        (how.views, how.scale, prompt, picture)
        for how in SETTINGS
        for prompt in range(2)
        for picture in range(2)
    ]
    assert [(r["views"], r["scale"], r["prompt"], r["picture"]) for r in rows] == expected
    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    scorer = tiny_clip()
    for row in rows[:4]:  # the pipeline alone
        one = PROMPTS[row["prompt"]]
        path = folder / "pictures" / "views-0-scale-0" / f"{row['prompt']:03d}-{row['picture']}.png"
        with Image.open(path) as image:
            stored = np.asarray(image)
        generator = torch.Generator().manual_seed(2 * row["prompt"] + row["picture"])
        (own,) = pipe(
            one.prompt, num_inference_steps=3, guidance_scale=4.0, generator=generator
        ).images
        assert np.abs(np.asarray(own).astype(int) - stored).max() <= 1
        assert row["correct"] == grade(stored, one.scene).correct
        assert row["reward"] == pytest.approx(scorer.score(stored, one.prompt).item(), abs=1e-4)
        robust = scorer.score(stored, one.prompt, views=8).item()
        assert row["robust"] == pytest.approx(robust, abs=1e-4)
    for plain, guided, robust in zip(rows[:4], rows[4:8], rows[8:], strict=True):
        assert guided["reward"] > plain["reward"]
        assert robust["robust"] > plain["robust"]


def test_a_killed_run_goes_on(
    made: tuple[Path, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = made
    calls = itertools.count()
    real = guidance_pictures.grade

    def grade_or_break(*arguments: object) -> object:
        if next(calls) == 6:  # in the middle of a setting and of a batch
            raise Killed
        return real(*arguments)  # type: ignore[arg-type] # handed on

    with monkeypatch.context() as patch:
        patch.setattr(guidance_pictures, "grade", grade_or_break)
        with pytest.raises(Killed):
            rows_of(tmp_path)
    with (tmp_path / "pictures.jsonl").open("a") as file:
        file.write('{"views": 0, "sca')  # killed while it wrote
    again: list[object] = []
    monkeypatch.setattr(guidance_pictures, "grade", lambda *a: (again.append(a), real(*a))[1])
    rows = rows_of(tmp_path)
    assert len(again) == 12 - 6
    assert [row["correct"] for row in rows] == [row["correct"] for row in whole]
    found, expected = ([row["reward"] for row in some] for some in (rows, whole))
    assert found == pytest.approx(expected, abs=0.05)  # batches of other sizes round differently
    # More scales are added to what is there; other noise is refused.
    more = rows_of(tmp_path, settings=[*SETTINGS, Setting(0, 0.1)])
    assert more[:12] == rows
    assert len(more) == 16
    with pytest.raises(ResumeError, match="delete it or choose another output"):
        rows_of(tmp_path, seed=1)


def test_points_by_hand() -> None:
    settings = [Setting(0, 0.0), Setting(0, 0.1)]

    def row(scale: float, prompt: int, reward: float, robust: float, correct: bool) -> dict:
        numbers = {"reward": reward, "robust": robust, "correct": correct}
        return {"views": 0, "scale": scale, "prompt": prompt, "picture": 0, **numbers}

    rows = [
        row(0.0, 0, 1.0, 0.5, True),
        row(0.0, 1, 2.0, 1.0, False),
        row(0.1, 0, 4.0, 1.0, False),
        row(0.1, 1, 6.0, 3.0, False),
    ]
    before, after = curve(rows, settings)
    assert [before.values[name].value for name in MEASURES] == [1.5, 0.75, 0.5]
    assert [after.values[name].value for name in MEASURES] == [5.0, 2.0, 0.0]
    assert [before.gains[name].value for name in MEASURES] == [0.0, 0.0, 0.0]
    assert [after.gains[name].value for name in MEASURES] == [3.5, 1.25, -0.5]
    assert (after.gains["correct"].low, after.gains["correct"].high) == (-1.0, 0.0)
    assert after.setting == settings[1]


def test_settings() -> None:
    assert settings_of([0.1, 0.0, 0.05, 0.1], 4) == [
        Setting(0, 0.0),
        Setting(0, 0.05),
        Setting(4, 0.05),
        Setting(0, 0.1),
        Setting(4, 0.1),
    ]
    with pytest.raises(ValueError, match="views from 1 and scales from 0"):
        settings_of([-0.1], 4)
    with pytest.raises(ValueError, match="views from 1 and scales from 0"):
        settings_of([0.1], 0)


def test_the_command_writes_numbers_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pipeline(tiny_pipeline(), tmp_path / "pipeline")
    tiny_clip().save_pretrained(tmp_path / "scorer")
    call = {
        "pipeline": tmp_path / "pipeline",
        "out": tmp_path / "out",
        "scorer": str(tmp_path / "scorer"),
        "scale": [0.02],
        "views": 1,
        "per_category": 1,
        "steps": 2,
    }
    main(**call)
    report = json.loads((tmp_path / "out" / "curve.json").read_text())
    points = report["points"]
    assert [p["setting"] for p in points] == [
        {"views": 0, "scale": 0.0},
        {"views": 0, "scale": 0.02},
        {"views": 1, "scale": 0.02},
    ]
    assert all(p["values"]["correct"]["prompts"] == 10 for p in points)
    assert points[1]["gains"]["reward"]["low"] > 0
    with Image.open(tmp_path / "out" / "curve.png") as figure:
        assert figure.width > 1000
    assert "95 % interval" in capsys.readouterr().out
    rows = (tmp_path / "out" / "pictures.jsonl").read_bytes()
    main(**call)  # nothing is made again
    assert (tmp_path / "out" / "pictures.jsonl").read_bytes() == rows
