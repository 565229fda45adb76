"""Blocks of code on the pages of documentation, and which of them are not run."""

import re
from collections.abc import Iterator

NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*\Z")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> Iterator[str]:
    """Python blocks of a page, without those that an HTML comment before them excludes."""
    for block in PYTHON_BLOCK.finditer(text):
        if not NOT_RUN.search(text[: block.start()]):
            yield block[1]
