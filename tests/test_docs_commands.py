"""Commands on the pages can be typed: they and their options exist, and say what they need."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.docs import NOT_RUN
from helpers.places import DOCS, ROOT

from stablepref.cli.main import COMMANDS, load

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(
    r"\bhps-v|\bpickscore|\bimagereward-v|\bhf:|\bhf-hub:|https?://|\bs3://|\"cuda\"|sd-turbo"
    r"|stable-diffusion-v1"
)
"""What needs the network, a GPU or downloaded weights."""
LONG_OR_ELSEWHERE = re.compile(
    r"^pip install (?!'?stablepref)|^pytest|^(accelerate|torchrun) "
    r"|benchmarks\.(speed|precision)\b"
    r"|shapes\.(studies\.\w+|clip\.train|pipeline\.train|preference\.\w+|ablation)\b",
    re.MULTILINE,
)
"""What changes the reader's environment, runs in a clone alone, or takes minutes to hours."""
HERE = re.compile(r"127\.0\.0\.1|localhost")


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block of shell, lines that go on joined."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\|?|;", line.partition(" #")[0]):
            words = [
                word for word in re.findall(r"'[^']*'|\"[^\"]*\"|\S+", part) if "=$(" not in word
            ]
            found.append([word.strip("'\"") for word in words])
    return [words for words in found if words]


def ours(words: list[str]) -> list[str]:
    """What follows `stablepref` where it is the command; empty where it is not."""
    for place, word in enumerate(words):
        called = place == 0 or words[place - 1] in ("-m", "if")
        if called and word.rpartition("/")[2] == "stablepref":
            return words[place + 1 :]
    return []


def check(words: list[str]) -> None:
    """Parse a command of ours as its own command line does, without running it."""
    name, *arguments = words
    command = load(name)
    try:
        context = command.make_context(name, list(arguments))
        if getattr(command, "commands", None):
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            inner, found, rest = command.resolve_command(context, rest)
            found.make_context(inner, rest, parent=context)
    except Exception as error:  # click's, or typer's copy of it
        if "does not exist" not in str(error):  # a file of the reader's
            raise


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_options_exist(page: Path) -> None:
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block[1] != "sh":
            continue
        for words in commands(block[2]):
            given = [word.replace(")", "") for word in ours(words)]
            if given and not given[0].startswith("-"):
                assert given[0] in COMMANDS, f"{page_id(page)}: {shlex.join(words)}"
                check(given)
            if "-m" in words and words[0].endswith("python"):
                module = words[words.index("-m") + 1]
                if module.startswith("stablepref."):
                    assert find_spec(module) is not None, f"{page_id(page)}: {module}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_that_need_more_than_this_package_are_marked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if HERE.search(block[2]):  # the page says what its server needs
            continue
        needs = ELSEWHERE.search(re.sub(r"#.*", "", block[2]))
        marked = NOT_RUN.search(text[: block.start()])
        assert needs is None or marked, f"{page_id(page)}: {needs and needs[0]} in\n{block[2]}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_that_take_long_or_change_the_environment_are_marked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        found = LONG_OR_ELSEWHERE.search(block[2]) if block[1] == "sh" else None
        marked = NOT_RUN.search(text[: block.start()])
        assert found is None or marked, f"{page_id(page)}: {found and found[0]} in\n{block[2]}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_folder_that_another_page_draws_is_introduced(page: Path) -> None:
    """`scenes` is drawn by the page itself, or the page says by which command it was."""
    text = page.read_text(encoding="utf-8")
    runnable = "".join(
        block[2] for block in BLOCK.finditer(text) if not NOT_RUN.search(text[: block.start()])
    )
    if re.search(r"""(?<=["'\s])scenes(?=["'/\s])""", runnable):
        prose = BLOCK.sub("", text).replace("\n", " ")
        drawn = re.search(r"--out scenes\b", runnable)
        assert drawn or re.search(r"`scenes`[^.]*\bhome page", prose), page_id(page)
