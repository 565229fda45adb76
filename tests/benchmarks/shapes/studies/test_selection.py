"""The measurement of selection and pruning: arithmetic by hand, and a tiny random pipeline."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.brightness import Brightness
from helpers.killed import Killed
from helpers.tiny import tiny_clip
from helpers.tiny_lab_pipeline import tiny_pipeline
from helpers.typed import refused, typed
from PIL import Image

from stablepref.benchmarks.shapes.oracle.grading import grade
from stablepref.benchmarks.shapes.pipeline.parts import save_pipeline
from stablepref.benchmarks.shapes.studies import selection_rows
from stablepref.benchmarks.shapes.studies.selection import RANDOM, gathered, main, schedules
from stablepref.benchmarks.shapes.studies.selection_numbers import (
    Candidates,
    best_curve,
    expected_best,
    pruned,
    standardised,
    survivors,
)
from stablepref.benchmarks.shapes.studies.selection_rows import candidate_rows
from stablepref.benchmarks.shapes.world.prompts import lab_prompts
from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.output.partial import ResumeError

PROMPTS = lab_prompts(per_category=1)[:2]
LOOKS = (0.25, 0.5)
STEPS = 4


def rows_of(folder: Path, *, seed: int = 0, looks: tuple[float, ...] = LOOKS) -> list[dict]:
    pipe = tiny_pipeline()
    scorers = {"one": tiny_clip(), "two": Brightness()}
    return candidate_rows(
        pipe, scorers, PROMPTS, folder, candidates=4, looks=looks, steps=STEPS, seed=seed,
        batch_size=2, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return rows_of(tmp_path_factory.mktemp("selection"))


def mean_over_draws(scores: np.ndarray, values: np.ndarray, n: int) -> float:
    draws = itertools.combinations(range(len(scores)), n)
    return float(np.mean([values[max(drawn, key=lambda one: scores[one])] for drawn in draws]))


@pytest.mark.parametrize("n", range(1, 7))
def test_the_expected_best_is_the_mean_over_all_draws(n: int) -> None:
    values = np.random.default_rng(0).normal(size=6)
    scores = np.array([3.0, 1.0, 5.0, 2.0, 0.0, 4.0])
    assert expected_best(scores, values, n) == pytest.approx(mean_over_draws(scores, values, n))
    # Of two that are equal, either is the better one half of the time.
    equal = np.array([3.0, 1.0, 5.0, 2.0, 0.0, 3.0])
    ways = [equal + shift * np.eye(6)[5] for shift in (-0.1, 0.1)]
    expected = np.mean([mean_over_draws(way, values, n) for way in ways])
    assert expected_best(equal, values, n) == pytest.approx(expected)


def test_all_alike_are_chosen_at_random() -> None:
    values = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    means = best_curve(np.zeros((2, 4)), values, [1, 3, 4])
    assert [mean.value for mean in means] == pytest.approx([0.75] * 3)


def test_scores_in_standard_deviations_by_hand() -> None:
    # Deviations -1, 1 and -3, 3: their mean square is 5.
    found = standardised(np.array([[1.0, 3.0], [10.0, 16.0]]))
    assert found == pytest.approx(np.array([[-1.0, 1.0], [-3.0, 3.0]]) / np.sqrt(5))


EARLY = np.array([[[4.0, 3.0, 2.0, 1.0, 9.0, 0.0]], [[0.0, 5.0, 0.0, 0.0, 1.0, 2.0]]])


def test_survivors_by_hand() -> None:
    options = {"looks": LOOKS, "steps": 8, "batch_size": 4}
    # Batches of four and two. After 2 steps 0 and 1 of the first stay, 4 of the second.
    left, taken = survivors(EARLY[:, 0], {0.25: 0.5}, **options)
    assert left == [0, 1, 4]
    assert taken == 6 * 2 + 3 * 6
    # After 4 steps only the better of 0 and 1 by the second look.
    left, taken = survivors(EARLY[:, 0], {0.5: 0.5, 0.25: 0.5}, **options)
    assert left == [1, 4]
    assert taken == 6 * 2 + 3 * 2 + 2 * 4
    # A share is rounded up.
    left, _ = survivors(EARLY[:, 0], {0.25: 0.3}, **options)
    assert left == [0, 1, 4]


def test_pruning_by_hand() -> None:
    scores = np.array([[0.0, 1.0, 6.0, 1.0, 2.0, 2.0]])  # mean 2, squares of deviations 4+1+16+1
    correct = np.array([[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]])
    found = pruned(
        Candidates({"one": scores}, EARLY, correct), "one", {0.25: 0.5},
        looks=LOOKS, steps=8, batch_size=4,
    )  # fmt: skip
    spread = np.sqrt(22 / 6)
    assert found.compute == pytest.approx(30 / 48)
    assert found.loss.value == pytest.approx((6 - 2) / spread)  # 0, 1 and 4 are left
    # 30 steps are enough for three candidates: the best is among them half of the time.
    means = [np.max(scores[0, list(d)]) for d in itertools.combinations(range(6), 3)]
    assert found.fewer.value == pytest.approx((6 - np.mean(means)) / spread)
    assert (found.kept.value, found.correct.value, found.correct_loss.value) == (0, 0, 1)


def test_schedules_take_half_of_the_steps_at_most() -> None:
    early = np.random.default_rng(0).normal(size=(4, 40))
    looks = (0.12, 0.2, 0.28, 0.4)
    for way in schedules(looks, 20):
        assert all(0 < keep < 1 for keep in way.values())
        _, taken = survivors(early, way, looks=looks, steps=25, batch_size=20)
        assert 0.45 * 40 * 25 < taken <= 0.5 * 40 * 25


def test_rows_are_the_candidates_of_best_of_n(made: list[dict]) -> None:
    expected = [(prompt, candidate) for prompt in range(2) for candidate in range(4)]
    assert [(row["prompt"], row["candidate"]) for row in made] == expected
    scorer = tiny_clip()
    chosen = best_of_n(
        tiny_pipeline(), PROMPTS[1].prompt, scorer, n=4, seed=4, batch_size=2, keep=4,
        num_inference_steps=STEPS, guidance_scale=4.0, progress=False,
    )  # fmt: skip
    own = [row["scores"]["one"] for row in made[4:]]
    assert own == pytest.approx([one.score for one in chosen.candidates], abs=0.05)
    for one, image in zip(chosen.kept, chosen.images, strict=True):
        row = made[4 + one]
        assert row["correct"] == grade(np.asarray(image), PROMPTS[1].scene).correct
        second = Brightness().score(image, PROMPTS[1].prompt).item()
        assert row["scores"]["two"] == pytest.approx(second, abs=0.05)
    assert own != pytest.approx([row["scores"]["two"] for row in made[4:]], abs=0.05)


def test_tried_pruning_is_that_of_best_of_n(made: list[dict]) -> None:
    found = gathered(made)
    way = {0.25: 0.5}
    for prompt, one in enumerate(PROMPTS):
        left, _ = survivors(found.early[:, prompt], way, looks=LOOKS, steps=STEPS, batch_size=2)
        chosen = best_of_n(
            tiny_pipeline(), one.prompt, tiny_clip(), n=4, seed=4 * prompt, batch_size=2,
            prune=way, num_inference_steps=STEPS, guidance_scale=4.0, progress=False,
        )  # fmt: skip
        assert left == [c.index for c in chosen.candidates if c.fault is None]


def test_a_killed_run_goes_on(
    made: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    real = selection_rows.grade

    def grade_or_break(*arguments: object) -> object:
        if next(calls) == 5:  # in the middle of the second prompt and of a batch
            raise Killed
        return real(*arguments)  # type: ignore[arg-type] # handed on

    with monkeypatch.context() as patch:
        patch.setattr(selection_rows, "grade", grade_or_break)
        with pytest.raises(Killed):
            rows_of(tmp_path)
    graded: list[object] = []
    monkeypatch.setattr(selection_rows, "grade", lambda *a: (graded.append(a), real(*a))[1])
    rows = rows_of(tmp_path)
    assert len(graded) == 8 - 5
    for name in ("one", "two"):
        again, whole = ([row["scores"][name] for row in some] for some in (rows, made))
        assert again == pytest.approx(whole, abs=0.05)
    with pytest.raises(ResumeError):
        rows_of(tmp_path, seed=1)


def test_without_looks_the_candidates_are_the_same(made: list[dict], tmp_path: Path) -> None:
    rows = rows_of(tmp_path, looks=())
    assert [row["early"] for row in rows] == [[]] * 8
    for ours, theirs in zip(rows, made, strict=True):
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=0.05)
        assert ours["correct"] == theirs["correct"]
    found = gathered(rows)
    assert len(found.early) == 0
    assert found.correct.shape == (2, 4)


def test_looks_at_one_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two of the looks at 0\.25, 0\.3 fall on one"):
        candidate_rows(
            tiny_pipeline(), {"one": Brightness()}, PROMPTS, tmp_path, looks=(0.25, 0.3), steps=4
        )


def test_the_command_writes_numbers_and_a_figure(tmp_path: Path) -> None:
    save_pipeline(tiny_pipeline(), tmp_path / "pipe")
    tiny_clip().save_pretrained(tmp_path / "scorer")
    arguments = [
        "--pipeline", tmp_path / "pipe", "--out", tmp_path / "out", "--candidates", 3,
        "--per-category", 1, "--steps", 12, "--batch-size", 3,
        "--scorer", f"mine={tmp_path / 'scorer'}",
    ]  # fmt: skip
    typed(main, *arguments)
    report = json.loads((tmp_path / "out" / "study.json").read_text())
    assert report["sizes"] == [1, 2, 3]
    assert set(report["correct"]) == {"mine", RANDOM}
    assert set(report["rewards"]) == {"mine"}
    assert len(report["pruning"]) == 5
    with Image.open(tmp_path / "out" / "selection.png") as figure:
        assert figure.width > 300
    assert "expected NAME=MODEL" in refused(main, *arguments, "--scorer", "shapes")
