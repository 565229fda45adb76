"""The registry of named things, with a package from outside that is installed for a test."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers.plugin import install_plugin

from stablepref.runtime import registry as module
from stablepref.runtime.registry import Registry

CODE = """
def double(x):
    return 2 * x
"""


def registry() -> Registry[object]:
    return Registry("trick", "stablepref.tricks", {"own": abs})


def test_what_comes_with_the_package_is_found_by_name() -> None:
    assert registry()["own"] is abs
    assert list(registry()) == ["own"]
    assert "own" in registry()
    assert "other" not in registry()


def test_a_registered_one_is_found_and_can_be_removed() -> None:
    tricks = registry()
    tricks.register("mine", max)
    tricks.register("mine", max)  # the same one again, as in a notebook
    assert tricks["mine"] is max
    assert list(tricks) == ["own", "mine"]
    tricks.unregister("mine")
    assert "mine" not in tricks


@pytest.mark.parametrize("name", ["own", "mine"])
def test_a_name_is_not_taken_over(name: str) -> None:
    tricks = registry()
    tricks.register("mine", max)
    with pytest.raises(ValueError, match=f"'{name}' is the name of another trick already"):
        tricks.register(name, min)


@pytest.mark.parametrize("name", ["", " mine"])
def test_a_name_is_a_word(name: str) -> None:
    with pytest.raises(ValueError, match="a trick needs a name"):
        registry().register(name, min)


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="other"):
        registry()["other"]


def test_an_installed_package_adds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, CODE, {"stablepref.tricks": {"double": "double"}})
    tricks = registry()
    assert list(tricks) == ["own", "double"]
    found = tricks["double"]
    assert callable(found)
    assert found(3) == 6
    assert tricks["double"] is found


def test_an_installed_one_does_not_hide_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, monkeypatch, CODE, {"stablepref.tricks": {"own": "double"}})
    assert registry()["own"] is abs


def test_a_package_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"stablepref.tricks": {"double": "double", "missing": "not_there"}}
    install_plugin(tmp_path, monkeypatch, CODE, broken)
    with pytest.raises(ImportError, match="trick 'missing' of the package from_outside"):
        registry()["missing"]
    assert registry()["double"] is not None


def test_installed_packages_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes tens of milliseconds, and models are looked up on every call."""
    read: list[str] = []

    def counted(*, group: str) -> object:
        read.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(module, "entry_points", counted)
    tricks = Registry("trick", "stablepref.tricks_read_once", {"own": abs})
    assert "a/folder" not in tricks
    assert "another/folder" not in tricks
    assert list(tricks) == ["own"]
    assert read == ["stablepref.tricks_read_once"]


def test_a_package_that_is_installed_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    places = list(sys.path)
    tricks = registry()
    assert "double" not in tricks
    install_plugin(tmp_path, monkeypatch, CODE, {"stablepref.tricks": {"double": "double"}})
    monkeypatch.setattr(sys, "path", places)  # the same folders as before, of which one has changed
    assert "double" in tricks
