"""`stablepref select`, with a tiny pipeline in a folder."""

import json
import math
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.sd15 import sd15
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import SHORT, build

from stablepref.integrations.best_of_n.choose import best_of_n

PROMPT = "a red circle"
SMALL = ("--steps", 2, "--height", 32, "--width", 32)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    build("sd")[0].save_pretrained(folder)
    return folder


def test_select_is_best_of_n(pipeline: Path, model: Path, tmp_path: Path) -> None:
    done = run(
        *("select", pipeline, "-p", PROMPT, "-s", model, "-n", 4, "--keep", 2, "--seed", 9),
        *("--out", tmp_path / "out", "--json", "--guidance", 3, *SMALL),
        *("--dtype", "float32", "--batch-size", 4, "--prune", "0.5:0.5"),
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    pipe, _ = build("sd")
    expected = best_of_n(
        pipe, PROMPT, tiny_clip(), 4, keep=2, seed=9, guidance_scale=3.0, prune={0.5: 0.5}, **SHORT
    )
    scores = [candidate["score"] or math.nan for candidate in row["candidates"]]
    assert scores == pytest.approx(expected.scores, abs=1e-3, nan_ok=True)
    assert sum(map(math.isnan, scores)) == 2
    assert [c["seed"] for c in row["kept"]] == [9 + i for i in expected.kept]
    assert row["folder"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "candidates.html").is_file()


def test_it_prints_the_best_and_the_margin(pipeline: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("select", pipeline, "-p", PROMPT, "-p", "a dog", "-s", model, "-n", 2, *SMALL)
    done = run(*arguments, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a red circle: best of 2" in done.stdout
    assert f"{tmp_path}/001/candidates.html" in done.stdout
    assert "margin over the second" in done.stdout
    again = run(*arguments, "--out", tmp_path)
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pipeline-dtype", "float99"], "expected float32, bfloat16 or float16"),
        (["--keep", "5"], "keep must be from 1 to n"),
        (["--prune", "0.5"], "is not AT:KEEP, such as 0.4:0.5"),
        (["--prune", "0.5:half"], "is not AT:KEEP, such as 0.4:0.5"),
        (["-s", "no-such-model"], "unknown model"),
    ],
)
def test_wrong_use_is_one_line(
    pipeline: Path, model: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    base = ["select", pipeline, "-p", PROMPT, "--out", tmp_path, "-n", 2]
    chosen = [] if "-s" in arguments else ["-s", model]
    done = run(*base, *chosen, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipeline_that_is_not_there_is_one_line(model: Path, tmp_path: Path) -> None:
    done = run(
        *("select", tmp_path / "none", "-p", PROMPT, "--out", tmp_path / "o", "-s", model),
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_scheduler_prunes_stable_diffusion_1_5(model: Path, tmp_path: Path) -> None:
    sd15().save_pretrained(tmp_path / "sd15")
    call = ("select", tmp_path / "sd15", "-p", PROMPT, "-s", model, "-n", 2, "--prune", "0.5:0.5",
            "--batch-size", 2, "--json", "--no-safety-checker", "-o", tmp_path / "out",
            *SMALL)  # fmt: skip
    refused = run(*call)
    assert refused.returncode == 2
    assert "--scheduler ddim" in refused.stderr
    done = run(*call, "--scheduler", "ddim")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert len(row["candidates"]) == 2
