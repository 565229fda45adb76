"""Checkpoints on full disks, among damaged ones, and how many stay."""

import json
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from stablepref.output.durable import remove_leftovers
from stablepref.training.resume import checkpoint_of, newest_checkpoint, save_checkpoint


@pytest.fixture
def accelerator() -> Accelerator:
    engine = Accelerator(cpu=True)
    engine.prepare(torch.nn.Linear(2, 2))
    return engine


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[-8:]) for path in folder.glob("step-*"))


def save(accelerator: Accelerator, folder: Path, step: int, keep: int = 2) -> Path:
    state = {"described": {"config": {"seed": 0}, "data": "d", "validation": "v"}}
    return save_checkpoint(accelerator, folder, step=step, state=state, keep=keep)


def damage(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def test_the_newest_few_stay(accelerator: Accelerator, tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save(accelerator, tmp_path, step, keep=2)
    assert steps(tmp_path) == [3, 10]
    found, problems = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, problems) == (10, [])


@pytest.mark.parametrize(("keep", "left"), [(1, [700]), (2, [500, 700])])
def test_damaged_later_ones_do_not_push_out_the_one_just_written(
    accelerator: Accelerator, tmp_path: Path, keep: int, left: list[int]
) -> None:
    for step in (500, 900, 1000):
        path = save(accelerator, tmp_path, step, keep=10)
        if step > 500:
            damage(path)
    save(accelerator, tmp_path, 700, keep=keep)
    assert steps(tmp_path) == left
    found, problems = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, problems) == (700, [])


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError("PytorchStreamWriter failed writing file: No space left"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_full_disk_is_an_oserror_and_frees_what_was_begun(
    accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save(accelerator, tmp_path, 1)

    def full(place: str) -> None:
        Path(place).mkdir()
        (Path(place) / "model.safetensors").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(accelerator, "save_state", full)
    with pytest.raises(OSError, match=r"cannot write the checkpoint of step 2 .*No space left"):
        save(accelerator, tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".step-00000007.writing", ".saving-x1y2", "step-00000006", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
    (tmp_path / ".README.md.writing").write_text("half")
    (tmp_path / "README.md").write_text("whole")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".hidden", "README.md", "step-00000006"]


def test_what_differs_is_told_also_where_a_setting_is_gone_or_new(
    accelerator: Accelerator, tmp_path: Path
) -> None:
    path = save(accelerator, tmp_path / "checkpoints", 1)
    sealed = json.loads((path / "state.json").read_text())
    sealed["state"]["described"]["config"] = {"seed": 0, "momentum": 0.5}
    (path / "state.json").write_text(json.dumps(sealed))
    now = {"config": {"seed": 0, "tau": 0.2}, "data": "d", "validation": "other"}
    with pytest.raises(ValueError, match="another training") as error:
        checkpoint_of(tmp_path, now, resume=True)
    assert (
        "another training: tau was absent, is 0.2; momentum was 0.5, is absent; the validation "
        "differs; choose another folder"
    ) in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "entry"),
    [
        (("files",), {}, "files does not list"),
        (("files",), {"state.json": ""}, "files does not list"),
        (("files",), ["model.safetensors"], "files is "),
        (("files", "../../secret"), "0", r"files lists '\.\./\.\./secret', which is elsewhere"),
        (("step",), 10**9, "step is 1000000000, which is not that of the folder"),
        (("step",), "2", "step is '2'"),
        (("step",), True, "step is True"),
        (("state",), [], "state is "),
        (("state", "described"), {"config": 3}, r"state\.described is "),
    ],
)
def test_a_state_that_does_not_fit_is_not_believed(
    accelerator: Accelerator, tmp_path: Path, place: tuple[str, ...], value: object, entry: str
) -> None:
    (tmp_path / "secret").write_text("not ours")
    folder = tmp_path / "checkpoints"
    save(accelerator, folder, 1)
    state = save(accelerator, folder, 2) / "state.json"
    sealed = json.loads(state.read_text())
    *way, last = place
    inner = sealed
    for step in way:
        inner = inner[step]
    inner[last] = value
    state.write_text(json.dumps(sealed))
    found, (problem,) = newest_checkpoint(folder)
    assert found is not None
    assert found.step == 1
    assert re.search(rf"step-00000002 is damaged: state\.json: {entry}", problem)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "\0", "[" * 100_000])
def test_a_state_that_is_none(accelerator: Accelerator, tmp_path: Path, text: str) -> None:
    (save(accelerator, tmp_path, 1) / "state.json").write_text(text)
    found, (problem,) = newest_checkpoint(tmp_path)
    assert found is None
    assert "step-00000001 is damaged: " in problem
