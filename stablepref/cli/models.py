"""`stablepref models`: what can be loaded by name."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stablepref.cli.ends import say
from stablepref.cli.options import AsJson

if TYPE_CHECKING:
    from stablepref.models.entry import Entry
    from stablepref.output.tables import Table


def models(as_json: AsJson = False) -> None:
    """List the models that can be loaded by name."""
    from stablepref.models.families import FAMILIES
    from stablepref.models.registry import SCORERS, entry_of
    from stablepref.output.tables import print_table
    from stablepref.weights.cache import is_cached

    entries = []
    for name in SCORERS:
        try:
            entries.append(entry_of(name))
        except (ImportError, TypeError, ValueError) as error:  # of a package from outside
            say(f"not listed: {error}")
    entries += FAMILIES
    members = {family.name for family in FAMILIES}
    # Of a family it depends on the member.
    here = {e.name: None if e.name in members else is_cached(e.files) for e in entries}
    if as_json:
        listed = [entry.facts() | {"here": here[entry.name]} for entry in entries]
        print(json.dumps(listed, indent=1))
        return
    print_table(_table(entries, here))
    print()
    print("here: loads without a download. More about each model: stablepref models --json")
    for test, short in _test_sets(entries).items():
        print(f"{short}: published pairwise agreement with people on {test}, in per cent")


def _table(entries: "Sequence[Entry]", here: Mapping[str, bool | None]) -> "Table":
    """The zoo in 80 columns, with the published numbers of each test set."""
    from stablepref.output.tables import Table

    tests = _test_sets(entries)
    names = ("name\nbackbone", "MB", "here", "unit\nprotocol", "licence", *tests.values())
    return Table(
        columns=names,
        rows=[
            (
                f"{entry.name}\n{entry.backbone}",
                str(entry.size_mb or "-"),
                here[entry.name],
                f"{entry.unit}\n{entry.protocol}",
                entry.licence,
                *(str(entry.published.get(test, "-")) for test in tests),
            )
            for entry in entries
        ],
        right=("MB", *tests.values()),
        unbroken=("MB", "here", "licence", *tests.values()),
        compact=True,
    )


def _test_sets(entries: "Sequence[Entry]") -> dict[str, str]:
    """The test sets of published numbers, with the short name of each."""
    tests = dict.fromkeys(test for entry in entries for test in entry.published)
    return {test: "".join(filter(str.isupper, test)) for test in tests}
