"""Names from files stay inside their folder."""

import pytest

from stablepref.output.names import stays_inside


@pytest.mark.parametrize("name", ["00012", "anime/00012", "a b.c-d", "..a", "a..", "é/ü"])
def test_names_inside(name: str) -> None:
    assert stays_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/a",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "a//b",
        "./a",
        "a/",
        "a\\..\\b",
        "C:a",
        "a\0",
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not stays_inside(name)
