"""The package as users get it: light to import, complete in its wheel, whole from elsewhere."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.isolated import heavy_imports, isolated
from helpers.places import ROOT

import stablepref

# Top-level folders and where they are installed.
SOURCES = {
    "stablepref": "stablepref",
    "benchmarks": "stablepref/benchmarks",
    "integrations": "stablepref/integrations",
}

IMPORT = "import stablepref"
HELP = """
import sys
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="stablepref")
sys.argv = ["stablepref", "--help"]
try:
    script.load()()
except SystemExit as end:
    assert not end.code, end.code
else:
    raise AssertionError("--help did not end the program")
"""


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_no_heavy_import(code: str, tmp_path: Path) -> None:
    assert heavy_imports(code, tmp_path) == set()


def test_heavy_imports_are_noticed(tmp_path: Path) -> None:
    brings = {"torch", "accelerate"}
    assert heavy_imports("import stablepref; stablepref.Scorer", tmp_path) >= brings


def test_every_public_name_resolves() -> None:
    for name in stablepref.__all__:
        assert getattr(stablepref, name) is not None
    assert set(stablepref.__all__) <= set(dir(stablepref))
    with pytest.raises(AttributeError, match="stablepref attribute scores"):
        stablepref.scores  # noqa: B018 - the access itself is what is tested


def test_tests_see_the_installed_package() -> None:
    """The repository's own `stablepref` folder must not stand in for an ordinary installation."""
    distribution = importlib.metadata.distribution("stablepref")
    record = json.loads(distribution.read_text("direct_url.json") or "{}")
    if record.get("dir_info", {}).get("editable"):
        pytest.skip("stablepref is installed in editable form")
    folder = Path(str(distribution.locate_file("stablepref")))
    assert Path(str(stablepref.__file__)).parent == folder
    assert not folder.is_relative_to(ROOT / "stablepref")


def test_the_checkout_is_importable_as_it_lies() -> None:
    """Python started in a clone with -c or -m finds all of the package there, nothing installed."""
    code = """
from stablepref.benchmarks.cli import bench
from stablepref.cli import main
from stablepref.integrations.cli import select
print(*(module.__file__ for module in (bench, main, select)), sep="\\n")
"""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = done.stdout.split("\n")[:-1]
    assert len(places) == 3
    assert all(Path(place).is_relative_to(ROOT / "stablepref") for place in places)


def folders(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every folder of the tree once, with its place in the wheel.

    Links are not followed: in the checkout `stablepref/integrations` and `stablepref/benchmarks`
    lead to folders that are counted where they lie.
    """
    for source, target in SOURCES.items():
        for name, below, _ in os.walk(root / source):
            below[:] = sorted(one for one in below if one != "__pycache__")
            place = f"{target}/{Path(name).relative_to(root / source)}".removesuffix("/.")
            yield Path(name), place


def package_folders(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Folders of Python files in the tree, each with its place in the wheel."""
    for folder, place in folders(root):
        if any(folder.glob("*.py")):
            yield folder, place


def wanted_files(root: Path = ROOT) -> set[str]:
    """All that belongs in the wheel: package folders with their files, assets and templates."""
    packages = {place for _, place in package_folders(root)}
    return {
        f"{place}/{path.name}"
        for folder, place in folders(root)
        if place in packages or {"assets", "templates", "workflows"} & set(place.split("/"))
        for path in folder.iterdir()
        if path.is_file()
    }


def build(kind: str, folder: Path, output: Path) -> Path:
    """The wheel or sdist of the tree in `folder`, built by the tools that are installed."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", output]
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = output.iterdir()
    return built


def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def copy_in_small(source: str, target: str) -> None:
    """A file, but of weights no more than their beginning: they take seconds to compress."""
    shutil.copy2(source, target)
    if source.endswith(".safetensors"):
        os.truncate(target, 1000)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The tree, copied without what an earlier build left, with its wheel and its sdist."""
    tree = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "results")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tree / name, symlinks=True, ignore=ignore, copy_function=copy_in_small
            )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return SimpleNamespace(
        tree=tree,
        wheel=build("wheel", tree, tmp_path_factory.mktemp("wheel")),
        sdist=build("sdist", tree, tmp_path_factory.mktemp("sdist")),
    )


def test_linked_folders_are_counted_once() -> None:
    links = [ROOT / "stablepref" / name for name in ("integrations", "benchmarks")]
    assert all(link.is_symlink() for link in links)  # else the next line shows nothing
    assert not any(folder.is_relative_to(link) for folder, _ in folders() for link in links)
    places = [place for _, place in folders()]
    assert len(places) == len(set(places))


def test_every_folder_of_python_files_is_a_package() -> None:
    for folder, _ in package_folders():
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_wheel_holds_every_package_and_its_data(built: SimpleNamespace) -> None:
    found = wheel_files(built.wheel)
    wanted = wanted_files(built.tree)
    known = {
        "stablepref/py.typed",
        "stablepref/integrations/__init__.py",
        "stablepref/benchmarks/shapes/__init__.py",
        "stablepref/output/templates/pictures.html.j2",
        "stablepref/benchmarks/bench/report/templates/gallery.js",
        "stablepref/benchmarks/demo/templates/demo.html.j2",
    }
    assert known <= wanted
    assert sorted(wanted - found) == []
    assert sorted(found - wanted) == []


def test_sdist_builds_the_same_wheel(built: SimpleNamespace, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert {"README.md", "LICENSE", "pyproject.toml"} <= {path.name for path in folder.iterdir()}
    rebuilt = build("wheel", folder, tmp_path / "wheel")
    assert wheel_files(rebuilt) == wheel_files(built.wheel)


def test_wheel_says_what_it_is(built: SimpleNamespace) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        text = {name.rpartition("/")[2]: name for name in archive.namelist()}
        metadata = archive.read(text["METADATA"]).decode()
        scripts = archive.read(text["entry_points.txt"]).decode()
        assert "LICENSE" in text
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "stablepref = stablepref.cli.main:main" in scripts


def test_subpackages_import_from_elsewhere(built: SimpleNamespace, tmp_path: Path) -> None:
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", target, built.wheel], check=True)
    packages = [place.replace("/", ".") for _, place in package_folders(built.tree)]
    modules = [f"stablepref.{p.stem}" for p in (built.tree / "stablepref").glob("[!_]*.py")]
    code = f"""
import json
from importlib import import_module
print(json.dumps({{name: import_module(name).__file__ for name in {packages + modules}}}))
"""
    places = json.loads(isolated(code, tmp_path, PYTHONPATH=str(target)))
    assert set(packages) < set(places)
    for name, place in places.items():
        assert Path(place).is_relative_to(target), f"{name} came from {place}, not from the wheel"
