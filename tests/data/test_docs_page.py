"""What docs/data.md shows runs, and its tables name what there is."""

import re
from pathlib import Path

import pytest
from helpers.docs import python_blocks
from helpers.places import DOCS

from stablepref.data.formats import FORMATS
from stablepref.data.read import format_names
from stablepref.data.rows import READERS

PAGE = (DOCS / "data.md").read_text()


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    try:
        for block in python_blocks(PAGE):
            exec(compile(block, "data.md", "exec"), names)
    finally:
        FORMATS.unregister("votes")


def test_every_format_and_kind_of_file_is_listed() -> None:
    table = PAGE.partition("| `format` |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `([\w-]+)` \| ", table, re.MULTILINE)
    assert ["auto", *listed] == list(format_names())
    for suffix in READERS:
        assert f"`{suffix}`" in PAGE
