"""Files to be written: where they can be, and never over what is read."""

from pathlib import Path

import pytest

from stablepref.output.outputs import check_input, check_place, checked_items
from stablepref.scoring.manifest import Item


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    check_place("--out", tmp_path / "new.csv")
    with pytest.raises(ValueError, match=r"--out .*this is a folder; expected the name of a file"):
        check_place("--out", tmp_path)
    with pytest.raises(ValueError, match=r"--out .*there is no folder .*none"):
        check_place("--out", tmp_path / "none" / "new.csv")


def test_an_input_is_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.csv"
    own.touch()
    (tmp_path / "other.csv").touch()
    (tmp_path / "link.csv").symlink_to(own)
    monkeypatch.chdir(tmp_path)
    for name in ("own.csv", str(own), f"{tmp_path}/./own.csv", "link.csv"):
        with pytest.raises(ValueError, match=r"--out own\.csv would write over .*, which is read"):
            check_input("--out", Path("own.csv"), ["other.csv", name])
    check_input("--out", own, ["other.csv", "none.csv", "https://host/own.csv", "a\0b", b"own.csv"])
    check_input("--out", tmp_path / "new.csv", ["new.csv", "own.csv"])


def test_items_are_checked_as_they_come(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch()
    items = (Item(str(path), path, "x") for path in (tmp_path / "0.png", page))
    checked = checked_items("--html", page, items)
    assert next(checked).name.endswith("0.png")
    with pytest.raises(ValueError, match=r"would write over .*page\.html"):
        next(checked)
