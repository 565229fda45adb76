"""The walls of the house: imports point down, nothing imports in a circle, and files stay readable.

docs/design.md names the layers and gives the reason for each wall.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from helpers.places import ROOT

SOURCES = {
    "stablepref": "stablepref",
    "stablepref.integrations": "integrations",
    "stablepref.benchmarks": "benchmarks",
}
MOST_LINES = 400

# From the ground up. A module belongs to the longest name here that it begins with, and imports
# from its own line and the lines before it.
LAYERS = """
stablepref.runtime
stablepref.output
stablepref.assets
stablepref.weights
stablepref.models.entry stablepref.models.sizes
stablepref.models.recent
stablepref.models.catalog stablepref.models.families stablepref.models.registry
stablepref.images
stablepref.preprocess
stablepref.augment
stablepref.scoring
stablepref.scorer
stablepref.models
stablepref.zoo
stablepref.data
stablepref.losses
stablepref.recipes
stablepref.training
stablepref.trainer
stablepref.evaluation
stablepref.cli
stablepref.__main__
stablepref.integrations.diffusion
stablepref.integrations
stablepref.integrations.guidance stablepref.integrations.noise_optimization
stablepref.integrations.best_of_n
stablepref.integrations.finetune
stablepref.integrations.cli
stablepref.benchmarks.shapes.world
stablepref.benchmarks.shapes.people
stablepref.benchmarks.shapes.oracle
stablepref.benchmarks.shapes.clip
stablepref.benchmarks.shapes.pipeline
stablepref.benchmarks.shapes.preference
stablepref.benchmarks.shapes.studies stablepref.benchmarks.shapes.ablation
stablepref.benchmarks.shapes
stablepref.benchmarks.bench
stablepref.benchmarks.bench.statistics
stablepref.benchmarks.bench.report
stablepref.benchmarks
stablepref.benchmarks.paper stablepref.benchmarks.demo
stablepref.benchmarks.cli
"""
RANKS = {
    name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()
}

# Where modules may be named in strings: the table of commands, and the catalogue of models.
TABLES = {
    "stablepref.cli.main",
    "stablepref.models.catalog",
    "stablepref.models.families",
    "stablepref.models.recent",
}
NAMED = re.compile(r"(stablepref(?:\.\w+)+)(?::\w+)?")


@dataclass(frozen=True)
class Module:
    """A module's code, as far as walls are concerned."""

    name: str
    path: Path
    text: str

    @property
    def package(self) -> str:
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """All modules of the tree by their names."""
    found = {}
    for prefix, folder in SOURCES.items():
        for path in walk(ROOT / folder):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            name = ".".join([prefix, *parts])
            found[name] = Module(name, path, path.read_text(encoding="utf-8"))
    return found


@cache
def nodes(text: str) -> list[ast.AST]:
    """All that a file's code consists of."""
    return list(ast.walk(ast.parse(text)))


@cache
def whole_graph() -> dict[str, set[str]]:
    """Of the tree."""
    return graph(modules())


def walk(folder: Path) -> Iterator[Path]:
    """The Python files below a folder; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from walk(path)
        elif path.suffix == ".py":
            yield path


def imported(module: Module, names: Mapping[str, Module]) -> set[str]:
    """The modules of `names` that a module imports: at once, lazily, for types or by string."""
    found = set()
    for node in nodes(module.text):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = NAMED.fullmatch(node.value)
            if named and module.name not in TABLES and not _is_command(module, node):
                found.add(named[1])
    return {_known(name, names) for name in found} - {"", module.name}


def _is_command(module: Module, node: ast.Constant) -> bool:
    """Whether a string is an argument of `python -m`."""
    line = module.text.splitlines()[node.lineno - 1]
    return '"-m"' in line


def _known(name: str, names: Mapping[str, Module]) -> str:
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def rank(name: str) -> int:
    """The layer of a module, from the ground up."""
    while name not in RANKS:
        name = name.rpartition(".")[0]
        assert name not in ("", "stablepref"), "a module outside all layers: add it to LAYERS"
    return RANKS[name]


def upward(edges: Mapping[str, set[str]]) -> list[str]:
    """Imports from a lower layer into a higher one."""
    return [
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in sorted(others)
        if rank(other) > rank(name)
    ]


def graph(names: Mapping[str, Module]) -> dict[str, set[str]]:
    """Imports between modules; what a package's lazy `__init__` names is no import of its own."""
    return {
        name: {other for other in imported(module, names) if other != "stablepref"}
        for name, module in names.items()
        if module.path.stem != "__init__"
    }


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Each group of modules of which every one reaches every other."""

    @cache
    def reached(start: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in edges.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return frozenset(seen)

    groups = {
        tuple(sorted(other for other in reached(name) if name in reached(other)))
        for name in edges
        if name in reached(name)
    }
    return [list(group) for group in sorted(groups)]


def imports_by_string(names: Mapping[str, Module]) -> list[str]:
    """Calls of `import_module` with a module of ours, outside the tables and lazy `__init__`s."""
    return [
        f"{module.path}:{node.lineno}"
        for module in names.values()
        if module.name not in TABLES and module.path.stem != "__init__"
        for node in nodes(module.text)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
        and any(
            isinstance(arg, ast.Constant) and str(arg.value).startswith("stablepref")
            for arg in node.args
        )
    ]


def test_imports_point_down() -> None:
    assert upward(whole_graph()) == []


def test_nothing_imports_in_a_circle() -> None:
    assert circles(whole_graph()) == []


def test_modules_are_named_in_strings_only_in_the_tables() -> None:
    assert imports_by_string(modules()) == []


def test_files_are_as_long_as_an_idea() -> None:
    long = {
        str(module.path.relative_to(ROOT)): lines
        for module in modules().values()
        if (lines := len(module.text.splitlines())) > MOST_LINES
    }
    assert long == {}


def _edges(**texts: str) -> dict[str, set[str]]:
    return graph(_made(**texts))


def _made(**texts: str) -> dict[str, Module]:
    names = {name.replace("__", "."): text for name, text in texts.items()}
    return {
        name: Module(name, Path(*name.split(".")).with_suffix(".py"), text)
        for name, text in names.items()
    }


SCORER = {"stablepref__scorer": "", "stablepref__output__text": ""}


@pytest.mark.parametrize(
    "text",
    [
        "from stablepref.scorer import Scorer",
        "import stablepref.scorer",
        "from stablepref import scorer",
        "def lazily():\n    from stablepref.scorer import Scorer",
        "if TYPE_CHECKING:\n    from stablepref.scorer import Scorer",
        "import_module('stablepref.scorer')",
        "HOME = {'Scorer': 'stablepref.scorer:Scorer'}",
        "from ..scorer import Scorer",
    ],
)
def test_an_upward_import_is_noticed(text: str) -> None:
    made = _made(**SCORER | {"stablepref__output__text": text})
    assert upward(graph(made)) == ["stablepref.output.text imports stablepref.scorer"]


def test_a_downward_import_is_fine() -> None:
    assert upward(_edges(**SCORER | {"stablepref__scorer": "import stablepref.output.text"})) == []


def test_a_circle_is_noticed() -> None:
    made = _made(
        stablepref__data__rows="if TYPE_CHECKING:\n    from stablepref.data.read import Group",
        stablepref__data__read="from stablepref.data.rows import rows",
    )
    assert circles(graph(made)) == [["stablepref.data.read", "stablepref.data.rows"]]


def test_an_import_by_string_is_noticed() -> None:
    made = _made(stablepref__data__rows="import importlib\nimportlib.import_module('stablepref.x')")
    assert len(imports_by_string(made)) == 1
