"""Self-contained HTML pages, filled from the templates of a package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from stablepref.output.durable import replacing

if TYPE_CHECKING:
    from pathlib import Path


def render_template(template: str, *, package: str = "stablepref.output", **values: object) -> str:
    """Fill a template.

    Args:
        template: Its name in the folder `templates` of the package.
        package: The package. Its templates can include those of `stablepref.output`, such as its
            colours.
        values: For the template; text in them is escaped.
    """
    homes = dict.fromkeys((package, "stablepref.output"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(home) for home in homes]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_template(
    path: Path, template: str, *, package: str = "stablepref.output", **values: object
) -> None:
    """Fill a template; the file appears whole or not at all.

    Args:
        path: The page; written under a temporary name first.
        template: As for `render_template`.
        package: As for `render_template`.
        values: For the template; text in them is escaped.

    Raises:
        OSError: The page cannot be written.
    """
    text = render_template(template, package=package, **values)
    with replacing(path) as staging:
        # File names need not be valid text, and a page has to be.
        staging.write_text(text, encoding="utf-8", errors="replace")
