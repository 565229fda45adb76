"""Dependencies are what is imported: pyproject.toml beside every import of another package."""

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.places import ROOT

PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = (
    "diffusers",
    "train",
    "bench",
    "metrics",
    "vlm",
    "ray",
    "serve",
    "label",
    "ray-serve",
    "judge",
    "notebook",
)
"""For users; the others are for developers, or collect these."""
FOLDERS = ("stablepref", "integrations", "benchmarks")
DISTRIBUTIONS = {"PIL": "pillow", "open_clip": "open_clip_torch"}
"""What is installed under another name than it is imported by."""
STANDARD = {*sys.stdlib_module_names, "_typeshed", "stablepref"}
OFFICIAL = {
    *("clip", "hpsv2", "hpsv3", "ImageReward"),
    *("aesthetic_predictor_v2_5", "cyclereward", "imscore"),
}
"""Code that parity and speed compare with, in environments of its own."""
TRAINERS = {"flow_grpo", "flow_factory", "unirl"}
"""Trainers that call us, and that we ask for what is theirs, where they are installed."""
HOSTS = {"comfy", "nodes"}
"""ComfyUI's own modules, which are there where it loads our nodes."""
BY_OTHERS = {
    "tensorboard": "accelerate's tracker of this name",
    "ipywidgets": "rich's progress bars in notebooks",
    "python-multipart": "FastAPI's reader of forms",
}
"""Declared dependencies that are imported by another package, at our request."""
CALLS = {"import_module", "importlib.import_module", "import_extra"}
NEED_AN_EXTRA = {"stablepref/output/figures.py", "stablepref/evaluation/plots.py"}
"""Modules of the core that only work with an extra; others import them inside functions."""


class Import(NamedTuple):
    """One import of another package.

    Attributes:
        package: As it is imported, such as "PIL".
        place: "top", "function" or "types".
    """

    package: str
    place: str


def imports(text: str) -> Iterator[Import]:
    """Every import of a module's text that is neither of Python nor of this project."""
    tree = ast.parse(text)
    places: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            places |= {id(inner): "function" for inner in ast.walk(node)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            places |= {id(inner): "types" for inner in ast.walk(node)}
    for node in ast.walk(tree):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            names = [str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        for name in names:
            package = name.partition(".")[0]
            if package not in STANDARD:
                yield Import(package, places.get(id(node), "top"))


@cache
def modules() -> dict[Path, list[Import]]:
    """What each Python file of the project imports; links are not followed."""

    def below(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from below(path)
            elif path.suffix == ".py":
                yield path

    return {
        path: list(imports(path.read_text(encoding="utf-8")))
        for name in FOLDERS
        for path in below(ROOT / name)
    }


def plain(requirement: str) -> str:
    """The name of a requirement as package indexes compare it."""
    match = re.match(r"[\w.\-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def distribution(package: str) -> str:
    """What is installed for an import."""
    return plain(DISTRIBUTIONS.get(package, package))


CORE = [plain(requirement) for requirement in PROJECT["dependencies"]]
OPTIONAL = {
    name: [plain(requirement) for requirement in PROJECT["optional-dependencies"][name]]
    for name in EXTRAS
}
DECLARED = {*CORE, *(name for names in OPTIONAL.values() for name in names)}


def undeclared(found: Iterable[Import], declared: Collection[str]) -> set[str]:
    """Packages that are imported and are not a dependency."""
    packages = {one.package for one in found} - OFFICIAL - TRAINERS - HOSTS
    return {package for package in packages if distribution(package) not in declared}


def test_what_is_imported_is_declared() -> None:
    for path, found in modules().items():
        assert not undeclared(found, DECLARED), path


def test_what_is_declared_is_imported() -> None:
    found = {distribution(one.package) for every in modules().values() for one in every}
    assert DECLARED - found == set(BY_OTHERS)


def test_the_core_imports_extras_only_where_they_are_needed() -> None:
    """In functions, or in modules that are imported in functions."""
    needing = {f"stablepref.{Path(name).parent.name}.{Path(name).stem}" for name in NEED_AN_EXTRA}
    for path, found in modules().items():
        name = str(path.relative_to(ROOT))
        if not name.startswith("stablepref/") or name in NEED_AN_EXTRA:
            continue
        assert not undeclared([one for one in found if one.place == "top"], CORE), path
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules_at_top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not modules_at_top & needing, path


def test_the_core_is_imported_at_the_top() -> None:
    """Except by commands, which check their options before slow imports."""
    for path, found in modules().items():
        if path.parent.name == "cli" or path.is_relative_to(ROOT / "benchmarks" / "parity"):
            continue
        late = {distribution(one.package) for one in found if one.place == "function"} & set(CORE)
        # The speed benchmark's script runs where only the contender is installed.
        assert not late or path == ROOT / "benchmarks" / "speed" / "contender.py", path


def test_no_package_is_named_twice() -> None:
    assert len(set(CORE)) == len(CORE)
    for extra, names in OPTIONAL.items():
        assert len(set(names)) == len(names), extra
        assert not set(names) & set(CORE), extra


def test_every_dependency_has_a_lowest_version() -> None:
    """Which `.ci/lowest` tries."""
    optional = [PROJECT["optional-dependencies"][name] for name in EXTRAS]
    for requirement in itertools.chain(PROJECT["dependencies"], *optional):
        assert re.fullmatch(r"[\w.\-]+(\[\w+\])?>=[\d.]+", requirement), requirement


def test_all_holds_every_extra() -> None:
    assert PROJECT["optional-dependencies"]["all"] == [f"stablepref[{','.join(EXTRAS)}]"]


def test_the_versions_of_python_are_named() -> None:
    named = [
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import unknown.part", "top"),
        ("from unknown import part", "top"),
        ("def late():\n    import unknown", "function"),
        ("def late():\n    import_extra('unknown.part')", "function"),
        ("importlib.import_module('unknown')", "top"),
        ("if TYPE_CHECKING:\n    from unknown import part", "types"),
    ],
)
def test_an_undeclared_import_is_noticed(text: str, place: str) -> None:
    (found,) = imports(text)
    assert found == ("unknown", place)
    assert undeclared([found], DECLARED) == {"unknown"}


def test_python_and_this_project_are_no_dependencies() -> None:
    text = "import os.path\nfrom . import x\nfrom .y import z\nfrom stablepref.scorer import Scorer"
    assert not list(imports(text))


def test_packages_are_known_by_what_is_installed() -> None:
    found = imports("import PIL.Image, open_clip\nfrom huggingface_hub import HfApi")
    assert not undeclared(found, {"pillow", "open-clip-torch", "huggingface-hub"})
