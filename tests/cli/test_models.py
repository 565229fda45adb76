"""`stablepref models` as a user meets it."""

import json

import pytest
from helpers.commandline import run

from stablepref.models.catalog import ENTRIES
from stablepref.models.families import FAMILIES


def test_models_lists_all() -> None:
    done = run("models")
    assert done.returncode == 0, done.stderr
    listed = json.loads(run("models", "--json").stdout)
    assert [{k: v for k, v in e.items() if k != "here"} for e in listed] == [
        json.loads(json.dumps(entry.facts())) for entry in (*ENTRIES, *FAMILIES)
    ]
    for entry in (*ENTRIES, *FAMILIES):
        facts = (entry.name, entry.backbone, entry.unit, entry.protocol, entry.licence)
        for fact in (*facts, *map(str, entry.published.values())):
            assert fact in done.stdout
    assert {e["name"]: e["here"] for e in listed}["shapes"]


@pytest.mark.parametrize("width", [80, 100])
def test_models_fit_a_terminal(width: int) -> None:
    done = run("models", FORCE_COLOR="1", COLUMNS=str(width), TERM="dumb")
    assert max(map(len, done.stdout.splitlines())) <= width
    for entry in ENTRIES:
        for fact in (entry.name, entry.licence, *map(str, entry.published.values())):
            assert fact in done.stdout
