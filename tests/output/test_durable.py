"""Files that appear whole or not at all."""

import os
import signal
from pathlib import Path

import pytest

from stablepref.output.durable import (
    WRITING,
    remove_leftovers,
    replace_together,
    replacing,
    whole,
)


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with replacing(path) as staging:
        staging.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_file_of_before(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as staging:
            staging.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_is_swept_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.json"):
        pass  # nothing was written
    (tmp_path / f".a.json{WRITING}").write_text("half")
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_what_was_begun_for_one_file(tmp_path: Path) -> None:
    half: list[Path] = []
    others: list[Path] = []
    for name, kept in (("[a].json", half), ("[a].json.b", others), ("a.json", others)):
        with replacing(tmp_path / name) as staging:
            staging.write_text("x")
            kept.append(staging)
    for path in half + others:
        path.write_text("half")
    remove_leftovers(tmp_path, of=tmp_path / "[a].json")
    assert not any(path.exists() for path in half)
    assert all(path.exists() for path in others)


def test_a_link_that_waits_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    """Names until the end are not known beforehand, and differ each time."""
    mine = tmp_path / "mine"
    mine.write_text("private")
    names = []
    for _ in range(2):
        with replacing(tmp_path / "a.json") as staging:
            names.append(staging.name)
            assert not staging.exists()
            staging.write_text("x")
    assert len(set(names)) == 2
    for name in (*names, f".a.json{WRITING}"):
        (tmp_path / name).symlink_to(mine)
    with replacing(tmp_path / "a.json") as staging:
        staging.write_text("new")
    assert mine.read_text() == "private"
    remove_leftovers(tmp_path)
    assert mine.read_text() == "private"


def test_a_link_to_a_folder_is_removed_and_not_its_content(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("private")
    link = tmp_path / f".a{WRITING}"
    link.symlink_to(tmp_path / "mine")
    remove_leftovers(tmp_path)
    assert not link.is_symlink()
    assert (tmp_path / "mine" / "file").exists()


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    with replacing(path) as staging:
        staging.write_text("x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("moved", [0, 1, 2])
@pytest.mark.parametrize("links", [True, False])
def test_files_that_belong_together_are_replaced_together(
    error: type[BaseException],
    moved: int,
    links: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    staging, folder = tmp_path / "staging", tmp_path / "folder"
    for place in (staging, folder):
        place.mkdir()
    files = [staging / name for name in ("model", "extra", "config")]
    for path in files:
        path.write_text(f"new {path.name}")
    for name in ("model", "config", "other"):
        (folder / name).write_text(f"old {name}")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    replace, count = Path.replace, 0

    def stops(path: Path, target: Path) -> Path:
        nonlocal count
        if count == moved:
            raise error
        count += 1
        return replace(path, target)

    def no_link(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stops)
        if not links:
            patch.setattr(Path, "hardlink_to", no_link)
        with pytest.raises(error):
            replace_together(files, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    for path in files:
        path.write_text(f"new {path.name}")
    replace_together(files, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "model": "new model", "extra": "new extra", "config": "new config", "other": "old other"
    }  # fmt: skip


def _killed_while_replacing(staging: Path, folder: Path, moved: int) -> None:
    """In a process of its own: SIGKILL before the move after so many."""
    replace, count = Path.replace, 0

    def dies(path: Path, target: Path) -> Path:
        nonlocal count
        if count == moved:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return replace(path, target)

    Path.replace = dies  # type: ignore[method-assign, assignment]
    replace_together([staging / name for name in ("model", "extra", "config")], folder)


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_kill_between_two_moves_leaves_the_files_of_before_whole(
    moved: int, tmp_path: Path
) -> None:
    staging, folder = tmp_path / "staging", tmp_path / "folder"
    for place in (staging, folder):
        place.mkdir()
    for name in ("model", "config", "other"):
        (folder / name).write_text(f"old {name}")
    for name in ("model", "extra", "config"):
        (staging / name).write_text(f"new {name}")
    child = os.fork()
    if child == 0:
        _killed_while_replacing(staging, folder, moved)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (moved < 3)
    age = "old" if moved < 3 else "new"
    place = whole(folder)
    assert {name: (place / name).read_text() for name in ("model", "config", "other")} == {
        "model": f"{age} model", "config": f"{age} config", "other": "old other"
    }  # fmt: skip
    for name in ("model", "extra", "config"):
        (staging / name).write_text(f"newest {name}")
    replace_together([staging / name for name in ("model", "extra", "config")], folder)
    assert whole(folder) == folder
    assert (folder / "model").read_text() == "newest model"
    remove_leftovers(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"model", "extra", "config", "other"}
