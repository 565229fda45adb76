"""`stablepref eval` as a user meets it: tables, JSON, plots, comparison, resumption, mistakes."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import png
from helpers.commandline import run
from helpers.forked import command
from helpers.isolated import imported_by
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.augment.perturbations import MIRRORING, PERTURBATIONS, TABLE_1, UNSEEN
from stablepref.cli.eval import TieRule, perturbation_names, perturbation_sets
from stablepref.evaluation.agreement import TIE_RULES, pairwise_accuracy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four groups of three pictures of noise, and annotators for the first."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(4):
        names = [f"{number}-{i}.png" for i in range(3)]
        for name in names:
            noise = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name)
        row = {"prompt": f"prompt {number}", "images": names, "ranks": [2, 1, 3]}
        rows.append(row | ({"annotations": [[2, 1, 3], [1, 2, 3]]} if not number else {}))
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another scorer of the same name, which was not trained on preferences."""
    folder = tmp_path_factory.mktemp("other")
    scorer = tiny_clip(preference_scale=None)
    for parameter in scorer.model.visual.parameters():
        parameter.data.mul_(1.5)
    scorer.save_pretrained(folder)
    return folder


def test_tables_of_one_model(model: Path, data: Path) -> None:
    done = run("eval", data, "-s", model, "--perturbations", "hflip,jpeg-50")
    assert done.returncode == 0, done.stderr
    for expected in (
        "4 prompts, 12 pairs and 0 ties; tie rule half",
        "people: single against single",
        "Accuracy by tie rule",
        "jpeg-50",
        "Accuracy by the size of the annotators' majority",
    ):
        assert expected in done.stdout
    assert "Beside" not in done.stdout


def test_json_agrees_with_the_scores_in_the_file(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run("eval", data, "-s", model, "--json", "--out", out, "--tie-rule", "pickscore")
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}" in done.stderr
    shown = json.loads(done.stdout, parse_constant=pytest.fail)
    written = json.loads(out.read_text(), parse_constant=pytest.fail)
    (report,) = written["models"]
    scores = [group["scores"][0] for group in report["scores"]]
    ranks = [group["ranks"] for group in report["scores"]]
    expected = pairwise_accuracy(scores, ranks, "pickscore").value
    assert report["accuracy"]["value"] == pytest.approx(expected)
    assert [row["name"] for row in report["perturbations"]] == list(TABLE_1)
    assert [len(group["scores"]) for group in report["scores"]] == [1 + len(TABLE_1)] * 4
    for key in ("scores", "score_rows"):
        del report[key]
    assert shown == written
    assert not list(tmp_path.glob("*.partial"))


def test_several_models_beside_the_first(
    model: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    plots = tmp_path / "plots"
    options = ("--perturbations", "hflip", "--plots", plots, "--out", tmp_path / "both.json")
    done = run("eval", data, "-s", model, "-s", other, *options)
    assert done.returncode == 0, done.stderr
    # Both bear the name "tiny", so each is told by its path.
    assert f"Beside tiny ({model})" in done.stdout
    assert f"tiny ({other})" in done.stdout
    assert "no calibration: " in done.stdout
    names = {"reliability.png", "perturbations.png", "agreement.png"}
    assert {path.name for path in plots.iterdir()} == names
    written = json.loads((tmp_path / "both.json").read_text())
    first, second = written["models"]
    (beside,) = written["compared"]
    difference = second["accuracy"]["value"] - first["accuracy"]["value"]
    assert beside["accuracy_difference"]["value"] == pytest.approx(difference)
    assert first["calibration"] is not None
    assert second["calibration"] is None
    assert "was not trained on preferences" in second["calibration_note"]
    assert not list(tmp_path.glob("*.partial"))


def test_bad_images_are_named_and_the_rest_is_evaluated(model: Path, data: Path) -> None:
    (data.parent / "1-0.png").write_bytes(b"no image")
    (data.parent / "2-2.png").unlink()
    done = run("eval", data, "-s", model, "--perturbations", "none", "--json")
    assert done.returncode == 1
    assert f"{data.parent / '1-0.png'} (image 0 of group 2): it is not an image" in done.stderr
    assert "2-2.png (image 2 of group 3): there is no such file" in done.stderr
    assert done.stderr.endswith("2 of 12 could not be scored\n")
    (report,) = json.loads(done.stdout)["models"]
    assert (report["groups"], report["images"], report["pairs"]) == (4, 10, 3 + 1 + 1 + 3)
    assert [row["image"] for row in report["excluded_images"]] == [0, 2]
    for path in data.parent.glob("*.png"):
        path.unlink()
    done = run("eval", data, "-s", model)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no group of 4 has two images that could be scored")
    assert done.stdout == ""


def test_rows_that_are_no_groups_are_counted(model: Path, tmp_path: Path) -> None:
    rows = [
        {"caption": "a cat", "label_0": a, "label_1": 1 - a, "has_label": a < 2}
        | {"image_0_url": str(tmp_path / "0.png"), "image_1_url": str(tmp_path / "1.png")}
        for a in (1, 0, 2)
    ]
    for name in "01":
        (tmp_path / f"{name}.png").write_bytes(png(int(name)))
    path = tmp_path / "pick.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("eval", path, "-s", model, "--perturbations", "none")
    assert done.returncode == 0, done.stderr
    assert f"{path}: left out 1 times: has_label is false" in done.stderr
    assert "1 prompt in 2 groups, 2 pairs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], "no such file or folder: none.jsonl"),
        (["{d}", "-s", "hsp"], "unknown model 'hsp'"),
        (["{d}", "--perturbations", "hflp"], "--perturbations has 'hflp'; expected some of: none"),
        (["{d}", "--tie-rule", "best"], "best"),
        (["{d}", "--tie-rule", "hpsv2", "--tie-margin", "1"], "0 with 'hpsv2'"),
        (["{d}", "--out", "a.csv"], "--out a.csv: expected a name that ends in .json"),
        (["{d}", "--out", "no/a.json"], "--out no/a.json: there is no folder no"),
        (["own.json", "--out", "own.json"], "--out own.json would write over own.json"),
        (["{d}", "--plots", "{d}"], "expected a folder"),
        (["{d}", "--format", "hpd"], "format is 'hpd'"),
        (["bad.jsonl"], "bad.jsonl, line 1: ranks has 1 item(s) for 2 images"),
        (["empty.jsonl"], "empty.jsonl is empty"),
        (["{d}", "--batch-size", "0"], "--batch-size"),
        ([], "Missing argument"),
    ],
)
def test_wrong_use_is_told_and_exit_code_2(
    model: Path, data: Path, arguments: list[str], says: str
) -> None:
    folder = data.parent
    (folder / "bad.jsonl").write_text('{"prompt": "p", "images": ["a", "b"], "ranks": [1]}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "own.json").write_text("[]")
    filled = [argument.format(d=data) for argument in arguments]
    done = run("eval", *filled, cwd=folder, STABLEPREF_MODEL=str(model))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert (folder / "own.json").read_text() == "[]"
    if done.stderr.startswith("error:"):
        assert done.stderr.count("\n") == 1


def test_a_library_that_is_missing_is_one_line(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("stablepref.evaluation.plots", "stablepref.output.figures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    done = run("eval", data, "-s", model, "--plots", data.parent / "plots")
    assert done.returncode == 2
    assert done.stderr == "error: plots need matplotlib: pip install 'stablepref[bench]'\n"


def test_help_needs_no_torch(tmp_path: Path) -> None:
    commands = [["eval", "--help"], ["data", "check", "--help"]]
    for (name, *_), (code, loaded) in zip(commands, imported_by(commands, tmp_path), strict=True):
        assert code == 0
        assert f"stablepref.cli.{name}" in loaded
        assert not loaded & {"torch", "numpy", "matplotlib", "PIL", "datasets"}


def test_a_killed_run_goes_on(model: Path, data: Path, tmp_path: Path) -> None:
    """SIGKILL at two moments, others in every test run; then the report of an unbroken run."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    many = tmp_path / "many.jsonl"
    with many.open("w") as file:
        for number in range(80):  # a prompt of its own each time, so that nothing is known
            row = rows[number % 4] | {"prompt": f"prompt {number}"}
            names = [f"many-{number}-{i}.png" for i in range(3)]
            for own, name in zip(row["images"], names, strict=True):
                (tmp_path / name).symlink_to(tmp_path / own)
            file.write(json.dumps(row | {"images": names}) + "\n")
    out, whole = tmp_path / "out.json", tmp_path / "whole.json"
    arguments = [
        "eval",
        many,
        "-s",
        model,
        "--perturbations",
        "jpeg-50",
        "--batch-size",
        4,
        "--out",
    ]
    assert run(*arguments, whole).returncode == 0
    partial = tmp_path / "out.json.partial"
    rng = np.random.default_rng()
    kept = b""
    for _ in range(2):
        target = kept.count(b"\n") + int(rng.integers(2, 15))
        with command(*arguments, out) as process:
            while process.poll() is None and _content(partial).count(b"\n") < target:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not out.exists()
        after = _content(partial)
        assert after.startswith(kept[: kept.rfind(b"\n") + 1])
        assert len(after) > len(kept)
        kept = after
    with partial.open("a") as file:
        file.write('{"group": "gro')  # killed in the middle of a line
    assert run(*arguments, out).returncode == 0
    assert not partial.exists()
    assert _rounded(out) == _rounded(whole)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _rounded(path: Path) -> object:
    """The scores, without the last digits, which depend on what was batched together."""
    (report,) = json.loads(path.read_text())["models"]
    assert len(report["scores"]) == 80
    return [[[round(s, 2) for s in row] for row in group["scores"]] for group in report["scores"]]


def test_a_killed_comparison_keeps_the_models_that_were_done(
    model: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    arguments = ["eval", data, "-s", model, "-s", other, "--perturbations", "none", "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        assert run(*arguments).returncode == 130
    partials = [tmp_path / "out.json.partial", tmp_path / "out.json.2.partial"]
    assert [path.read_text().count("\n") for path in partials] == [5, 5]
    swapped = ["eval", data, "-s", other, "-s", model, "--perturbations", "none", "--out", out]
    done = run(*swapped)
    assert done.returncode == 2
    assert "was made with" in done.stderr
    assert run(*arguments).returncode == 0
    assert not any(path.exists() for path in partials)


def _stop(*_: object) -> Path:
    raise KeyboardInterrupt


def test_names_of_sets_and_of_single_perturbations() -> None:
    assert tuple(rule.value for rule in TieRule) == TIE_RULES
    assert perturbation_names("none") == ()
    assert perturbation_names("table1") == TABLE_1
    assert perturbation_names("unseen, hflip,blur-1") == (*UNSEEN, "hflip")
    assert set(perturbation_names("all")) == set(PERTURBATIONS)
    assert not set(UNSEEN) & (MIRRORING | {name for name in PERTURBATIONS if "crop" in name})
    assert not set(perturbation_sets()) & set(PERTURBATIONS)
