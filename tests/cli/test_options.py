"""Options that commands share: settings, groups of options, and checks that need no torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from helpers.commandline import run
from typer.testing import CliRunner

from stablepref.benchmarks.shapes.ablation.suite import Suite
from stablepref.cli.options import (
    ScorerOptions,
    check_device,
    check_folder,
    chosen,
    with_options,
)
from stablepref.cli.settings import read_setting, with_settings
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.recipes import TrainConfig


@pytest.mark.parametrize(
    ("config", "name", "text", "value"),
    [
        (TrainConfig, "steps", "40", 40),
        (TrainConfig, "learning_rate", "2e-6", 2e-6),
        (TrainConfig, "hflip", "False", False),
        (TrainConfig, "hflip", "true", True),
        (TrainConfig, "crop_ratio", "none", None),
        (TrainConfig, "crop_ratio", "0.75,1.5", (0.75, 1.5)),
        (TrainConfig, "crop_area", "(0.5, 1)", (0.5, 1)),
        (TrainConfig, "batching", "pairs", "pairs"),
        (TrainConfig, "model", "7", "7"),
        (TrainConfig, "name", "none", "none"),
        (TrainConfig, "log_with", "none", None),
        (FinetuneConfig, "method", "ddpo", "ddpo"),
        (FinetuneConfig, "negative_prompt", "blurry, 7", "blurry, 7"),
        (FinetuneConfig, "negative_prompt", "none", None),
        (FinetuneConfig, "height", "64", 64),
    ],
)
def test_settings_are_read_as_their_fields_say(
    config: type[Any], name: str, text: str, value: object
) -> None:
    found = read_setting(config, name, text)
    assert found == value
    assert type(found) is type(value)


@dataclass(frozen=True)
class Size:
    """Options that travel together."""

    width: Annotated[int, typer.Option(min=1, help="How wide.")] = 3
    high: Annotated[float | None, typer.Option("--height", help="How high.")] = None

    def __post_init__(self) -> None:
        """Check what only the two together can show."""
        if self.high is not None and self.high > self.width:
            raise ValueError("higher than wide")


def invoke(command: Any, *arguments: str) -> Any:  # noqa: ANN401 (typer's own)
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments)


def test_a_dataclass_of_options_is_spelled_out_where_it_stands() -> None:
    found: list[object] = []

    @with_options
    def draw(
        *, name: Annotated[str, typer.Argument(help="Its name.")], size: Size, loud: bool = False
    ) -> None:
        """Draw."""
        found.append((name, size, loud))

    assert invoke(draw, "a").exit_code == 0
    assert invoke(draw, "b", "--width", "5", "--height", "2.5", "--loud").exit_code == 0
    assert found == [("a", Size(), False), ("b", Size(5, 2.5), True)]
    shown = invoke(draw, "--help").output
    assert shown.index("How wide") < shown.index("How high") < shown.index("--loud")
    assert "default: 3" in shown
    assert invoke(draw, "a", "--width", "0").exit_code == 2
    assert isinstance(invoke(draw, "a", "--height", "9").exception, ValueError)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One of each kind."""

    steps: Annotated[int, "how many"] = 4
    rate: Annotated[float | None, "how fast"] = None
    kind: Annotated[Literal["slow", "fast"], "which"] = "slow"
    quiet: Annotated[bool, "whether"] = True
    bounds: Annotated[tuple[float, float], "from and to"] = (0.5, 1.0)
    rates: Annotated[tuple[float, ...], "several"] = (1.0, 2.0)


@pytest.mark.parametrize("defaults", [True, False])
def test_settings_show_what_can_be_typed_and_their_defaults(defaults: bool) -> None:
    given: dict[str, str | None] = {}

    @with_settings(Settings, panel="Settings", defaults=defaults)
    def run(*, loud: bool = False, **settings: str | None) -> None:
        """Run."""
        assert not loud
        given.update(settings)

    shown = " ".join(invoke(run, "--help").output.split())
    for values in ("INTEGER", "NUMBER|none", "slow|fast", "true|false", "NUMBER,NUMBER"):
        assert values in shown
    assert ("default: 4" in shown) == defaults
    assert invoke(run, "--steps", "9").exit_code == 0
    assert given["steps"] == "9"
    assert (given["rate"] == "none") == defaults
    assert None in given.values() or defaults


@pytest.mark.parametrize("config", [Settings, FinetuneConfig, TrainConfig, Suite])
def test_defaults_are_read_back_as_they_are(config: type[Any]) -> None:
    given: dict[str, str] = {}

    @with_settings(config, panel="Settings")
    def run(**settings: str) -> None:
        given.update(settings)

    assert invoke(run).exit_code == 0
    assert given.keys() == {field.name for field in fields(config)}
    for field in fields(config):
        assert read_setting(config, field.name, given[field.name]) == field.default


def test_one_format_is_chosen() -> None:
    assert chosen(json=False, csv=False) is None
    assert chosen(json=False, csv=True) == "csv"
    with pytest.raises(ValueError, match="expected one of --json, --csv, not several"):
        chosen(json=True, markdown=False, csv=True)


def test_a_folder_for_results_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    check_folder("--out", tmp_path)
    check_folder("--out", tmp_path / "new" / "deep")
    with pytest.raises(ValueError, match=r"--out .*file: this is a file; expected a folder"):
        check_folder("--out", file)
    with pytest.raises(ValueError, match=r"--out .*file/new: \S+file is a file; expected a folder"):
        check_folder("--out", file / "new")


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_devices_of_torch_pass(device: str | None) -> None:
    check_device(device)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cdua", r"--device cdua cannot be used: expected cpu, cuda.*did you mean cuda\?"),
        ("gpu", "--device gpu cannot be used: expected cpu, cuda"),
        ("CUDA:0", r"did you mean cuda\?"),
        ("cuda:x", "--device cuda:x cannot be used"),
        ("", "--device  cannot be used"),
    ],
)
def test_what_is_no_device_is_refused(device: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_device(device)


@pytest.mark.parametrize("former", ["-m", "--model"])
def test_the_former_name_of_the_scorer_serves_one_more_release(
    former: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[str | None] = []

    @with_options
    def command(*, scorer: ScorerOptions) -> None:
        found.append(scorer.name)

    app = typer.Typer()
    app.command()(command)
    app([former, "shapes"], standalone_mode=False)
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: the scorer is chosen by --scorer (-s) now")
    app(["-s", "shapes-clip"], standalone_mode=False)
    assert capsys.readouterr().err == ""
    assert found == ["shapes", "shapes-clip"]
    with pytest.raises(ValueError, match="--model is the former name of --scorer"):
        app(["-s", "shapes", former, "shapes"], standalone_mode=False)


@pytest.mark.parametrize(
    "command", ["score", "rank", "compare", "eval", "select", "finetune", "bench run"]
)
def test_every_command_chooses_the_scorer_by_the_same_name(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert "--scorer -s" in shown
    assert ("--model" in shown) == (command == "bench run")
    assert "<bool>" not in shown
