"""Patterns in folders that links make endless."""

import glob
import os
from pathlib import Path

import pytest

from stablepref.images.paths import expand_path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    seen = ("a.png", "one/b.png", "one/two/c.png", "one/two/d.jpg")
    for name in (*seen, ".hid/e.png", "one/.f.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["**/*.png", "**", "**/*", "*/**/*.png", "one/**/c.png", "**/two/*", "**/**/*.png",
     "**/two/**/*.png", "o*/**/*.jpg", "[ao]*/**/*.png"],
)  # fmt: skip
def test_without_links_a_pattern_matches_what_glob_matches(pattern: str, tree: Path) -> None:
    expected = {
        Path(name)
        for name in glob.iglob(str(tree / pattern), recursive=True)  # noqa: PTH207
    }
    assert set(expand_path(str(tree / pattern))) == {p for p in expected if p.is_file()}


def test_relative_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    found = expand_path("**/*.png")
    assert sorted(map(str, found)) == ["a.png", "one/b.png", "one/two/c.png"]


def test_a_loop_of_links_is_entered_once(tree: Path) -> None:
    (tree / "one" / "up").symlink_to(tree)
    (tree / "one" / "two" / "self").symlink_to(".")
    (tree / "itself").symlink_to("itself")
    for branch in range(8):  # glob would follow each of them from each of them
        (tree / f"branch{branch}").symlink_to(tree / "one")
    found = expand_path(str(tree / "**" / "*"))
    assert [path.relative_to(tree).as_posix() for path in found] == [
        "a.png", "one/b.png", "one/two/c.png", "one/two/d.jpg"
    ]  # fmt: skip


def test_what_lies_behind_a_link_is_found(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "z.png").write_bytes(b"x")
    (tree / "linked").symlink_to(other)
    assert tree / "linked" / "z.png" in expand_path(str(tree / "**" / "*.png"))


def test_pipes_are_no_images(tree: Path) -> None:
    os.mkfifo(tree / "pipe.png")
    assert len(expand_path(str(tree / "**" / "*.png"))) == 3
    assert [path.name for path in expand_path(str(tree))] == ["a.png"]
