"""docs/serving.md says what is there."""

import re
import tomllib

from helpers.docs import python_blocks
from helpers.places import DOCS
from helpers.served import b64, grey, served

from stablepref.cli.main import load
from stablepref.integrations.judges.answers import PAIR_FORMS, POINT_FORMS
from stablepref.integrations.judges.template import Template, bundled_templates
from stablepref.integrations.serve.settings import PROTOCOLS, USUAL

PAGE = (DOCS / "serving.md").read_text()


def tables() -> list[list[str]]:
    """The first cells of each table."""
    found: list[list[str]] = [[]]
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not line.startswith("| ---"):
            found[-1].append(line.split("|")[1].strip())
    return [cells for cells in found if cells]


def test_every_option_of_the_server_is_listed() -> None:
    options = {name for one in load("serve").params for name in one.opts if name.startswith("--")}
    (listed,) = (cells for cells in tables() if "`--host`, `--port`" in cells)
    assert set(re.findall(r"--[\w-]+", " ".join(listed))) == options


def test_protocols_are_listed() -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `--protocol`"))
    named = re.findall(r"`([\w-]+)`", row)[1:]
    assert named == list(PROTOCOLS)
    assert named[:3] == list(USUAL)


def test_forms_of_answers_are_listed() -> None:
    (listed,) = (cells for cells in tables() if "`answer`" in cells)
    assert [cell.strip("`") for cell in listed[1:]] == [*POINT_FORMS, *PAIR_FORMS]


def test_options_and_templates_of_judges_are_listed() -> None:
    (listed,) = (cells for cells in tables() if "option after `?`" in cells)
    assert listed[1:] == ["`template`", "`concurrency`", "`retries`, `timeout`", "`cache`"]
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `template` |"))
    assert sorted(re.findall(r"`([\w-]+)`", row)[1:]) == bundled_templates()


def test_the_template_can_be_used() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    template = Template(**tomllib.loads(block))
    assert template.answer == "unified-point"
    assert template.options == {"chat_template_kwargs": {"enable_thinking": False}}


def test_the_plain_client_runs() -> None:
    """The block that posts JSON, with a server in this process in place of the address."""
    (block,) = (block for block in python_blocks(PAGE) if "/v1/score" in block)
    asked = re.search(r"asked = (\{.*\})", block)
    assert asked
    with served() as client:
        request = eval(asked[1], {"image": b64(grey(51))}) | {"model": "bright"}
        answer = client.post("/v1/score", json=request).json()
    assert set(answer) == set(re.findall(r'"(\w+)":', block.split("# ")[1]))
