"""The table of commands: what is in it, what is imported when, and commands from outside."""

import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from helpers.commandline import COMMAND, run
from helpers.isolated import isolated
from helpers.plugin import install_plugin

from stablepref.cli.main import COMMANDS, Command, load

PLUGIN = '''
import sys
from typing import Annotated
import typer

def greet(name: str, loud: Annotated[bool, typer.Option("--loud", help="Shout.")] = False) -> None:
    """Greet somebody."""
    if name == "nobody":
        raise ValueError("nobody is here")
    if name == "bug":
        raise KeyError(name)
    print(f"hello {name}".upper() if loud else f"hello {name}")

several = typer.Typer(help="Several of them.")

@several.command()
def one() -> None:
    """The first."""
    print("one")

@several.command()
def two() -> None:
    """The second."""
    raise OSError("two is not there")

number = 7
'''
NAMES = MappingProxyType(
    {"greet": "greet", "several": "several", "number": "number", "gone": "gone", "score": "greet"}
)


def child(*arguments: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "stablepref"] if module else COMMAND
    return subprocess.run([*start, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    install_plugin(folder, monkeypatch, PLUGIN, {"stablepref.commands": NAMES})


@pytest.mark.usefixtures("plugin")
def test_a_command_from_outside_runs_in_a_process_of_its_own() -> None:
    listed = child("--help", module=True)
    assert listed.returncode == 0, listed.stderr
    assert "greet" in listed.stdout
    assert "From the package from_outside." in listed.stdout
    own = child("greet", "--help", module=True)
    assert "Greet somebody." in own.stdout
    assert "--loud" in own.stdout
    done = child("greet", "Ann", "--loud", module=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO ANN\n", "")
    assert child("several", "one").stdout == "one\n"


@pytest.mark.usefixtures("plugin")
def test_a_command_from_outside_ends_like_any_other() -> None:
    done = child("greet", "nobody")
    assert (done.returncode, done.stderr) == (2, "error: nobody is here\n")
    done = child("several", "two")
    assert (done.returncode, done.stderr) == (2, "error: two is not there\n")
    bug = child("greet", "bug")
    assert bug.returncode == 2
    assert "KeyError: 'bug'" in bug.stderr


@pytest.mark.usefixtures("plugin")
def test_what_a_package_cannot_bring_is_one_line_and_hurts_no_other_command() -> None:
    number = run("number")
    assert number.returncode == 2
    assert number.stderr == (
        "error: the command 'number' is 7; expected a function or a typer.Typer\n"
    )
    gone = run("gone")
    assert gone.returncode == 2
    assert gone.stderr.startswith("error: the command 'gone' of the package from_outside")
    assert gone.stderr.count("\n") == 1
    # A name of ours stays ours.
    assert "--batch-size" in run("score", "--help", COLUMNS="100").stdout
    assert run("--help").returncode == 0


def test_a_program_adds_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def shout(word: str) -> None:
        """Say it loudly."""
        print(word.upper())

    monkeypatch.setattr(COMMANDS, "_registered", {})
    COMMANDS.register("shout", shout)
    assert run("shout", "hello").stdout == "HELLO\n"
    assert "shout" in run("--help").stdout


@pytest.mark.parametrize("name", COMMANDS.builtin)
def test_a_line_of_the_table_is_the_first_of_the_commands_own_help(name: str) -> None:
    line = COMMANDS.builtin[name]
    assert isinstance(line, Command)
    assert load(name).help.split("\n\n")[0] == line.help
    shown = run("--help", COLUMNS="200").stdout
    assert any(name in row and line.help in row for row in shown.splitlines())


def test_only_the_command_that_is_called_is_imported(tmp_path: Path) -> None:
    code = """
import io, json, sys
from contextlib import redirect_stdout
from stablepref.cli.main import COMMANDS, main
places = {name: line.place.partition(":")[0] for name, line in COMMANDS.builtin.items()}
loaded = lambda: {name for name, place in places.items() if place in sys.modules}
brought = {}
for name in ("", *places):
    before = loaded()
    sys.argv = ["stablepref", *name.split(), "--help"]
    with redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            assert not end.code
    brought[name] = sorted(loaded() - before)
print(json.dumps(brought))
"""
    assert json.loads(isolated(code, tmp_path)) == {
        "": [],
        **{name: [name] for name in COMMANDS.builtin},
    }


def test_a_mistyped_command_gets_a_suggestion() -> None:
    done = run("scroe", "a.png")
    assert done.returncode == 2
    assert "No such command 'scroe'" in done.stderr
    assert "'score'" in done.stderr
    assert run().returncode in (0, 2)  # as the library of the command line has it


def test_switches_take_no_value() -> None:
    for name in ("score", "finetune"):
        shown = run(name, "--help", COLUMNS="150").stdout
        (line,) = (row for row in shown.splitlines() if " --json " in row)
        assert "bool" not in line


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("stablepref 0.")


def test_help_shows_switches_without_a_type() -> None:
    for arguments in ([], ["bench"], ["models"]):
        done = run(*arguments, "--help")
        assert done.returncode == 0
        assert "<bool>" not in done.stdout
