"""The README and the pages under docs/ say what is there, and what they show runs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.commandline import run_module
from helpers.docs import python_blocks
from helpers.places import DOCS, ROOT

import stablepref
from stablepref.models.catalog import BY_NAME, ENTRIES
from stablepref.models.entry import HPDV2_TEST, IMAGEREWARD_TEST, Entry

README = ROOT / "README.md"
HOME = re.compile(r"https://github\.com/stablepref/stablepref/(?:blob|tree)/main/")
"""Where the README's links lead, since the index shows it without the repository beside it."""
PAGES = sorted(DOCS.rglob("*.md"))

SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"<!-- command: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)

# Pages whose Python blocks run here; other pages have tests of their own.
RUNNING = ("README.md", "docs/index.md", "docs/scoring.md", "docs/models.md")
PROMPT = "a red circle and a blue star"


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_python_blocks_are_found_unless_excluded() -> None:
    text = "a\n```python\n1\n```\n<!-- not run: downloads -->\n```python\n2\n```\n```sh\n3\n```\n"
    assert list(python_blocks(text)) == ["1\n"]


def test_readme_has_the_two_commands_that_continuous_integration_runs() -> None:
    commands = dict(COMMAND.findall(README.read_text()))
    assert list(commands) == ["run", "test"]
    for command in commands.values():
        *lines, last = command.splitlines()
        assert all(line.endswith(" \\") for line in lines), "one command to copy, not a script"
        assert not last.endswith("\\")


def test_readme_python_is_ten_lines() -> None:
    first = next(python_blocks(README.read_text()))
    assert len([line for line in first.splitlines() if line.strip()]) <= 10


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `scenes/`, drawn by the README's own command."""
    folder = tmp_path_factory.mktemp("docs")
    commands = "&&".join(SHELL_BLOCK.findall(README.read_text()))
    (render,) = (part for part in commands.split("&&") if "shapes.render" in part)
    run_module(render.replace("\\\n", " "), folder)
    return folder


def test_readme_command_puts_the_correct_picture_first(scenes: Path) -> None:
    best, *rest = stablepref.rank(scenes / "scenes", PROMPT, model="shapes")
    assert Path(best.name).stem.endswith("correct")
    assert len(rest) == 3
    assert PROMPT in README.read_text()


@pytest.mark.parametrize("page", RUNNING)
def test_python_blocks_run(page: str, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scenes)
    blocks = list(python_blocks((ROOT / page).read_text()))
    assert blocks
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:  # one after another, as a reader would type them
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", [README, *PAGES], ids=page_id)
def test_local_links_lead_to_files_of_the_same_tree(page: Path) -> None:
    for inline, reference in LINK.findall(CODE.sub("", page.read_text())):
        target = HOME.sub("", (inline or reference).partition("#")[0])
        if page != README and target == "examples":
            continue
        if not target or target.startswith(("http://", "https://")):
            continue
        path = (page.parent / target).resolve()
        there = path.exists() if target == "examples" else path.is_file()
        assert there, f"{page_id(page)} links to {target}, which is not there"
        assert page == README or path.is_relative_to(DOCS), f"{target} is outside the site"


def test_home_page_resolves_every_reference_of_the_readme() -> None:
    def definitions(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", path.read_text(), re.MULTILINE))

    found = {name: HOME.sub("", target) for name, target in definitions(README).items()}
    wanted = {name: target.removeprefix("docs/") for name, target in found.items()}
    wanted["examples"] = definitions(README)["examples"]  # not a page
    assert len(wanted) > 15
    assert definitions(DOCS / "index.md") == wanted


def test_navigation_names_every_page_once() -> None:
    def targets(nav: object) -> Iterator[str]:
        for item in nav if isinstance(nav, list) else [nav]:
            if isinstance(item, dict):
                for value in item.values():
                    yield from targets(value)
            else:
                yield str(item)

    # What is not plain YAML are tags that mkdocs understands.
    text = re.sub(r" !\S+", "", (ROOT / "mkdocs.yml").read_text())
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES}
    listed = list(targets(yaml.safe_load(text)["nav"]))
    assert set(listed) == pages
    assert len(listed) == len(pages)


def zoo_row(entry: Entry) -> str:
    """The row of docs/models.md that the catalog asks for."""
    name = f"[{entry.name}]({entry.page})" if entry.page else entry.name
    published = [
        f"{entry.published[test]:.1f}" if test in entry.published else "-"
        for test in (IMAGEREWARD_TEST, HPDV2_TEST)
    ]
    size = f"{entry.size_mb:,} MB" if entry.files else f"bundled, {entry.size_mb} MB"
    cells = [name, entry.backbone, entry.protocol, entry.unit, size, entry.licence, *published]
    return f"| {' | '.join(cells)} |"


def relation_row(entry: Entry) -> str:
    """The row of docs/models.md that says what the score is beside the official number."""
    return f"| `{entry.name}` | {entry.relation} |"


def test_models_page_agrees_with_the_catalog() -> None:
    rows = [line for line in (DOCS / "models.md").read_text().splitlines() if line[:2] == "| "]
    rows = [row for row in rows if not row.startswith(("| ---", "| name "))]
    expected = [make(entry) for make in (zoo_row, relation_row) for entry in ENTRIES]
    assert rows == expected, "docs/models.md should have these rows:\n" + "\n".join(expected)


def test_readme_names_every_model_of_the_zoo() -> None:
    table = README.read_text().partition("## Models")[2].partition("\n## ")[0]
    named = [name for name in re.findall(r"`([^`]+)`", table) if name in BY_NAME]
    assert sorted(set(named)) == sorted(BY_NAME)


def test_every_public_name_is_on_an_api_page() -> None:
    pages = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    members = re.findall(r"members: \[(.+)\]", pages)
    shown = set(re.findall(r"^::: \S*?(\w+)$", pages, re.MULTILINE))
    shown.update(name for listed in members for name in listed.split(", "))
    assert set(stablepref.__all__) <= shown


@pytest.mark.parametrize("page", [README, *PAGES], ids=page_id)
def test_no_page_is_unfinished(page: Path) -> None:
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|placeholder)\b", page.read_text())
