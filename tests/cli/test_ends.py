"""How the command line ends when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commandline import COMMAND, run
from helpers.forked import command
from helpers.isolated import imported_by
from helpers.tiny import tiny_clip

from stablepref.models.clip import CLIPScorer


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "{0}"], "--prompt is missing"),
        (["score", "{0}", "-p", " "], "--prompt is empty"),
        (["score", "{0}", "-p", "x", "-s", "hsp"], "unknown model 'hsp'"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--dtype", "int3"], "dtype"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--device", "gpu"], "--device gpu cannot be"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--batch-size", "0"], "--batch-size"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--views", "-1"], "--views"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--out", "a.txt"], ".jsonl"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--out", "no/a.csv"], "no folder no"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--out", "a.csv", "--json"], "leave --json"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--csv", "--json"], "one of --json, --csv, not"),
        (["score", "rows.csv", "-p", "x", "-s", "{m}"], "stands alone"),
        (["score", "rows.csv", "{0}", "-s", "{m}"], "stands alone"),
        (["score", "none.csv", "-s", "{m}"], "none.csv"),
        (["score", "empty.csv", "-s", "{m}"], "empty.csv has no rows"),
        (["score", "columns.csv", "-s", "{m}"], "there is no column for the image"),
        (["rank", "{0}", "-s", "{m}"], "--prompt is missing"),
        (["rank", "{0}", "-p", "x", "-s", "{m}", "--html", "no/a.html"], "no folder no"),
        (["rank", "{0}", "-p", "x", "-s", "{m}", "--html", "."], "--html .: this is a folder"),
        (["rank", "{0}", "-p", "x", "-s", "{m}", "--html", "{0}"], "would write over"),
        (["rank", ".", "-p", "x", "-s", "{m}", "--html", "{0}"], "would write over"),
        (["rank", "own.jsonl", "-s", "{m}", "--html", "{0}"], "would write over"),
        (["score", "own.jsonl", "-s", "{m}", "--out", "own.jsonl"], "would write over"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--out", "folder.csv"], "this is a folder"),
        (["score", "{0}", "-p", "x", "-s", "{m}", "--device", "meta"], "holds no numbers"),
        (["rank", "{0}", "-p", "x", "-s", "{m}", "--top", "0"], "--top"),
        (["compare", "{0}", "none.png", "-p", "x", "-s", "{m}"], "none.png"),
        (["compare", "{0}", ".", "-p", "x", "-s", "{m}"], "one image for a and one for b"),
        (["compare", "{0}", "-p", "x"], "b"),
        (["scroe"], "scroe"),
    ],
)
def test_wrong_use_is_told_and_exit_code_2(
    model: Path, pictures: list[Path], tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "empty.csv").write_text("image,prompt\n")
    (tmp_path / "columns.csv").write_text("picture,prompt\na.png,x\n")
    (tmp_path / "own.jsonl").write_text('{"image": "0.png", "prompt": "a cat"}\n')
    (tmp_path / "folder.csv").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    filled = [a.format(pictures[0], m=model) for a in arguments]
    done = run(*filled, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    if done.stderr.startswith("error:"):
        assert done.stderr.count("\n") == 1


def test_weights_that_are_not_here_are_one_line(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_CACHE", "STABLEPREF_CACHE"):
            patch.setenv(name, str(tmp_path))
        done = run("score", pictures[0], "-p", "x", "-s", "hps-v1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: hps-v1 is not on the hub")
    assert done.stderr.count("\n") == 1


def test_nothing_scored_is_exit_code_2_and_the_rows_say_why(model: Path) -> None:
    done = run("score", "no.png", "no*.png", "-p", "x", "-s", model, "--json")
    assert done.returncode == 2
    rows = json.loads(done.stdout)
    assert [row["image"] for row in rows] == ["no.png", "no*.png"]
    assert rows[0]["error"] == "there is no such file"
    assert "matches no file" in rows[1]["error"]


def test_a_cut_prompt_is_one_line_of_warning(model: Path, pictures: list[Path]) -> None:
    done = run("score", pictures[0], "-p", "word " * 100, "-s", model, "--json")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: tiny reads 77 tokens")
    assert done.stderr.count("\n") == 1


def test_a_model_that_gives_nan(tmp_path: Path, pictures: list[Path]) -> None:
    scorer = tiny_clip()
    torch.nn.init.constant_(scorer.model.visual.proj, 1e38)  # finite, and its sums are not
    scorer.save_pretrained(tmp_path / "nan")
    done = run("score", pictures[0], "-p", "a cat", "-s", tmp_path / "nan", "--json")
    assert done.returncode == 2
    (row,) = json.loads(done.stdout, parse_constant=pytest.fail)
    assert row["score"] is None
    assert row["error"].startswith("the model's score is nan")
    pair = run("compare", *pictures[:2], "-p", "a cat", "-s", tmp_path / "nan", "--json")
    assert pair.returncode == 2
    assert "the model's score is nan" in pair.stderr


@pytest.mark.parametrize("style", ["", "--csv"])
def test_a_closed_pipe_is_no_traceback(model: Path, pictures: list[Path], style: str) -> None:
    arguments = ["score", *pictures, "-p", "a cat", "-s", model, *style.split()]
    with command(*arguments, closed_pipe=True) as process:
        process.wait(120)
        assert process.stderr() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"), "CUDA out of mem"),
        (NotImplementedError("Cannot copy out of meta tensor; no data!"), "Cannot copy out"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_work_that_cannot_go_on_is_one_line_and_exit_code_2(
    model: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    says: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(CLIPScorer, "encode_inputs", fail)
    done = run("score", pictures[0], "-p", "x", "-s", model)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1


def test_a_fault_of_the_program_is_a_traceback_and_no_failed_images(
    model: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLIPScorer, "encode_inputs", lambda *_: {}["key"])
    done = run("score", pictures[0], "-p", "x", "-s", model)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "KeyError: 'key'" in done.stderr


LIGHT = [
    ["--help"],
    ["score", "--help"],
    ["score", "a.png"],
    ["score", "a.png", "-p", "x", "-s", "hsp"],
    ["rank", "a.png", "-p", "x", "--dtype", "foo"],
    ["compare", "a.png", "b.png", "-p", "x", "-s", "shapes", "--like", "hps-v2"],
    ["eval", "a.jsonl", "-s", "hsp"],
    ["eval", "none.jsonl", "-s", "shapes"],
    ["eval", "none.jsonl", "-s", "shapes", "--perturbations", "none-such"],
    ["train", "--data", "none.jsonl", "--out", "o"],
    ["train", "--data", "none.jsonl", "--out", "o", "--steps", "many"],
    ["select", "shapes", "-p", "x", "--out", "o", "-s", "hsp"],
    ["select", "none", "-p", "x", "--out", "o", "-s", "shapes"],
    ["select", "shapes", "-p", "x", "--out", "/dev/null/o", "-s", "shapes"],
    ["finetune", "shapes", "-p", "x", "--out", "o", "-s", "shapes", "--steps", "many"],
    ["finetune", "shapes", "-p", "x", "--out", "o", "-s", "shapes", "--pipeline-dtype", "no"],
    ["finetune", "shapes", "--prompts", "none.txt", "--out", "o", "-s", "shapes"],
    ["demo", "--pipeline", "none"],
    ["demo", "--out", "/dev/null"],
]
"""Help, and wrong use that is noticed before any work."""


def test_help_and_wrong_use_need_no_torch(tmp_path: Path) -> None:
    heavy = {"torch", "open_clip", "transformers", "torchvision", "diffusers", "accelerate"}
    ends = imported_by(LIGHT, tmp_path)
    assert not list(tmp_path.iterdir())
    for arguments, (code, loaded) in zip(LIGHT, ends, strict=True):
        assert code == (0 if "--help" in arguments else 2), arguments
        assert "stablepref.cli.main" in loaded
        assert not loaded & heavy, arguments
        assert "jinja2" not in loaded, arguments
        if "--help" in arguments:
            assert not loaded & {"numpy", "PIL"}, arguments
        if arguments == ["score", "a.png"]:  # images are looked for before a prompt is missed
            assert "numpy" in loaded  # so this test can fail


def test_closed_streams_end_quietly() -> None:
    """As with `>&-` in a shell."""
    for closed, fds in (("stdout", [1]), ("both", [1, 2])):
        done = subprocess.run(
            [sys.executable, "-c", f"import os, sys\nfor fd in {fds}: os.close(fd)\n"
             "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], 'models'])",
             COMMAND[2]],
            stderr=subprocess.PIPE, check=False, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b""), closed
