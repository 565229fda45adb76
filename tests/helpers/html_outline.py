"""The elements of an HTML page."""

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """Elements with their attributes, checking that each that needs an end has one."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def unstyled(html: str) -> str:
    """The page without the styles of its elements."""
    return re.sub(r' style="[^"]*"', "", html)
