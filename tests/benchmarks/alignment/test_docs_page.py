"""What the page on alignment benchmarks shows runs as it stands."""

import re

from helpers.docs import NOT_RUN
from helpers.places import DOCS

PAGE = (DOCS / "alignment.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_of_a_judge() -> None:
    blocks = [one for one in BLOCK.finditer(PAGE) if not NOT_RUN.search(PAGE[: one.start()])]
    assert len(blocks) == 1
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(blocks[0][1], "alignment.md", "exec"), names)
    errors = names["errors"]
    assert (errors.false_yes.value, errors.false_no.value) == (1.0, 0.0)  # type: ignore[attr-defined]
