"""Images are scored while others are drawn, and the table is the same."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.bench_case import PROMPTS, WORDS, draw_finished, run_case, save_pipeline
from helpers.brightness import Brightness

from stablepref.benchmarks.bench import generate, score
from stablepref.benchmarks.bench.image_folders import Picture
from stablepref.benchmarks.bench.judges import ModelJudge
from stablepref.benchmarks.bench.score import BATCH, Meanwhile


def pictures_of(folder: Path, count: int) -> list[Picture]:
    files = sorted(folder.glob("*.png"))
    return [Picture("model", i % len(WORDS), i, files[i % len(files)]) for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_finished(tmp_path_factory.mktemp("meanwhile") / "finished", broken=None)


def test_whole_batches_are_scored_in_a_thread_and_nothing_twice(folder: Path) -> None:
    pictures = pictures_of(folder, 2 * BATCH + 5)
    rows: list[dict[str, object]] = []
    threads = set()

    def write(batch: Sequence[dict[str, object]]) -> None:
        threads.add(threading.get_ident())
        rows.extend(batch)

    done = {pictures[3].key}
    judge = ModelJudge(Brightness(), name="bright")
    meanwhile = Meanwhile(WORDS, [judge], write, done)
    for start in range(0, len(pictures), 7):
        meanwhile.add(pictures[start : start + 7])
    meanwhile._running[-1].result()
    meanwhile.close()
    assert threading.get_ident() not in threads
    keys = [(row["model"], row["prompt"], row["image"]) for row in rows]
    left = [picture for picture in pictures if picture.key not in done]
    assert keys == [picture.key for picture in left[: 2 * BATCH]]  # the rest is left
    scores = [row["scores"]["bright"] for row in rows]  # type: ignore[index] # a mapping
    expected = Brightness().score([str(one.image) for one in left[: 2 * BATCH]], "any")
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_what_a_scorer_raises_is_raised(folder: Path) -> None:
    class Broken:
        name, unit = "broken", "none"

        def settings(self) -> dict[str, object]:
            return {}

        def __call__(self, *_: object) -> list[float | str]:
            raise KeyError("broken")

    meanwhile = Meanwhile(WORDS, [Broken()], lambda _: None, set())
    meanwhile.add(pictures_of(folder, BATCH))
    with pytest.raises(KeyError, match="broken"):
        meanwhile.close()


def test_a_run_that_scores_meanwhile_has_the_same_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = save_pipeline(tmp_path / "tiny")
    plain = run_case(pipeline, folder, tmp_path / "plain")
    early: list[Picture] = []
    verdicts = score._verdicts

    def seen(batch: Sequence[Picture], *rest: object) -> list[dict[str, object]]:
        if threading.current_thread() is not threading.main_thread():
            early.extend(batch)
        return verdicts(batch, *rest)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(score, "_verdicts", seen)
    monkeypatch.setattr(score, "BATCH", 2)
    monkeypatch.setattr(generate, "overlaps", lambda *_: True)
    beside = run_case(pipeline, folder, tmp_path / "beside")
    assert early
    assert {one.model for one in early} <= {"plain", "free"}
    np.testing.assert_allclose(beside.scores, plain.scores, atol=1e-6)
    assert len(PROMPTS.prompts) == plain.scores.shape[2]
