"""`stablepref demo` as a user meets it, and its page in the documentation."""

import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.docs import NOT_RUN, python_blocks
from helpers.places import DOCS
from helpers.tiny_pipelines import build

from stablepref.benchmarks.cli.demo import demo
from stablepref.benchmarks.shapes.pipeline.parts import GUIDANCE, STEPS
from stablepref.integrations.finetune.config import FinetuneConfig

PAGE = (DOCS / "demo.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "runs" / "pipeline" / "pipeline"
    build("sd")[0].save_pretrained(folder)
    return folder


def test_the_page_runs(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = pipeline.parents[2]
    monkeypatch.chdir(work)
    (command,) = (m[1] for m in COMMAND.finditer(PAGE) if not NOT_RUN.search(PAGE[: m.start()]))
    done = run(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    numbers = json.loads((work / "small" / "demo.json").read_text())
    scores = [row["score"] for row in numbers["candidates"]]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("two green stars: the best of 6 is seed ")
    assert f"{max(scores):.3f} against an average of {sum(scores) / 6:.3f}" in lines[1]
    assert "of 6 are" in lines[2]
    assert re.search(r"under \d+ of 16 perturbations", lines[3])
    assert lines[-1] == "look at small/index.html and small/demo.png"
    assert "nothing of human taste" in (work / "small" / "index.html").read_text()
    assert (work / "small" / "demo.png").is_file()
    pipe, _ = build("sd")
    for block in python_blocks(PAGE):
        exec(compile(block, "demo.md", "exec"), {"__name__": "__main__", "pipe": pipe})
    assert (work / "circles" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pipeline", "{}", "--steps", "0"], "--steps"),
        (["--pipeline", "none"], "none"),
        (["--pipeline", "{}", "--scorer", "no-such-model"], "unknown model"),
        (["--pipeline", "{}", "--n", "1"], "--n"),
        (["--pipeline", "{}", "--prompt", " "], "empty"),
    ],
)
def test_wrong_use_is_told(
    pipeline: Path, model: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    chosen = [] if "--scorer" in arguments else ["--scorer", model]
    filled = [one.format(pipeline) for one in arguments]
    done = run("demo", *filled, *chosen, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


def test_defaults_are_the_laboratorys_and_the_pages() -> None:
    defaults = {name: one.default for name, one in inspect.signature(demo).parameters.items()}
    assert (defaults["steps"], defaults["guidance"]) == (STEPS, GUIDANCE) == (25, 4.0)
    assert defaults["n"] == 100
    assert f'"{defaults["prompt"]}"' in PAGE
    assert f"`{defaults['out']}` unless" in PAGE


def test_the_page_tells_the_fine_tuning_as_the_code_has_it() -> None:
    from stablepref.benchmarks.demo import finetune as tuning

    config = tuning.short_config(seed=0)
    assert isinstance(config, FinetuneConfig)
    assert (config.method, config.rank) == ("draft", 0)
    assert config.last_steps == config.sampling_steps == tuning.DENOISING == 3
    assert config.guidance == 1
    assert f"{config.steps} steps of {config.batch_size} pictures" in PAGE
    assert f"{10 * tuning.TRAIN_PER_CATEGORY} prompts" in PAGE
    tests = 10 * tuning.PER_CATEGORY
    assert f"{tests * tuning.PICTURES} pictures of {tests} test prompts" in PAGE
