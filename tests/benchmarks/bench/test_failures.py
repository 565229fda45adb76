"""A benchmark whose pipeline fails: for some prompts, for all of them, or by blanked images."""

from pathlib import Path

import numpy as np
import pytest
from helpers.bench_case import CALL, PROMPTS, WORDS, draw_finished, failing, run_case, save_pipeline

from stablepref.benchmarks.bench import generate
from stablepref.benchmarks.bench.prompt_sets import PromptSet
from stablepref.benchmarks.bench.run import bench
from stablepref.integrations.best_of_n import candidates


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("bench") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_finished(tmp_path_factory.mktemp("bench") / "finished")


def test_a_pipeline_that_never_works_is_an_error(
    pipeline: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, set(WORDS))
        with pytest.raises(IndexError, match="no a red circle"):  # the fourth one
            run_case(pipeline, pictures, tmp_path / "all")
    # The prompts were not to blame, and none is left out the next time.
    sound = run_case(pipeline, pictures, tmp_path / "all")
    assert {one.model for one in sound.failures} == {"finished"}
    failing(monkeypatch, {"a blue square", "a dog"})
    monkeypatch.setattr(generate, "IN_A_ROW", 1)
    with pytest.raises(IndexError, match="no a dog"):
        run_case(pipeline, pictures, tmp_path / "row")


def test_a_set_of_which_every_prompt_fails_is_an_error_however_small(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, set(WORDS))
    few = PromptSet("few", PROMPTS.prompts[1:3])
    with pytest.raises(IndexError, match="no a dog"):
        bench(few, [str(pipeline)], ["shapes"], out=tmp_path, arguments=CALL, progress=False)


def test_a_prompt_that_fails_first_stops_nothing(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a new run, nor where it alone is left, by a kill or to be tried again."""
    failing(monkeypatch, {"a blue square"})
    few = PromptSet("few", PROMPTS.prompts[1:3])
    model = pipeline.name
    for retry in (False, False, True, True):
        table = bench(
            few, [str(pipeline)], ["shapes"], out=tmp_path, arguments=CALL, retry=retry,
            progress=False,
        )  # fmt: skip
        assert [(one.model, one.prompt) for one in table.failures] == [(model, few.prompts[0].key)]
        assert np.isfinite(table.of("shapes")[0, 1, 0])
        if not retry:  # as a kill leaves it
            for rows in (tmp_path / "faults" / model).iterdir():
                rows.unlink()


def test_blanked_images_are_told(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = candidates._call

    def blanked(*arguments: object) -> object:
        made = call(*arguments)  # type: ignore[arg-type] # handed on
        return [(image, candidates.FLAGGED if "dog" in prompt else None)
                for (image, _), prompt in zip(made, arguments[1], strict=True)]  # fmt: skip

    monkeypatch.setattr(candidates, "_call", blanked)
    table = bench(PROMPTS, [str(pipeline)], ["shapes"], out=tmp_path, arguments=CALL)
    assert [(one.prompt, one.reason) for one in table.failures] == [("00002", candidates.FLAGGED)]
    assert not (tmp_path / "images" / "tiny" / "00002.png").exists()
