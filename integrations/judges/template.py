"""What a judge is asked, and how its answer is to be read: a TOML file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final

from .answers import PAIR_FORMS, POINT_FORMS

MODES: Final = ("rubric", "yes-no", "pairwise")
PLACE: Final = "{prompt}"


@final
@dataclass(frozen=True)
class Template:
    """What a judge is asked, and how its answer is to be read.

    Attributes:
        mode: "rubric", a score of one image in words; "yes-no", the probability of yes; or
            "pairwise", a choice between two images.
        text: What is asked after the image, or images; `{prompt}` stands for the prompt.
        answer: The form of the answer: of `POINT_FORMS` for a rubric, of `PAIR_FORMS` for pairs.
        lowest: The lowest score that a rubric knows.
        highest: Its highest.
        system: A system message; empty for none.
        max_tokens: The longest answer.
        image_format: "png", or "jpeg" of quality 95.
        options: Further fields of each request, such as `chat_template_kwargs`.

    Raises:
        ValueError: A field has no such value, or `{prompt}` is missing.
    """

    mode: str
    text: str
    answer: str = ""
    lowest: float = 0.0
    highest: float = math.inf
    system: str = ""
    max_tokens: int = 1024
    image_format: str = "png"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.mode not in MODES:
            msg = f"mode = {self.mode!r}; expected one of {', '.join(MODES)}"
            raise ValueError(msg)
        if PLACE not in self.text:
            msg = f"text has no {PLACE}, so that the judge would not know the prompt"
            raise ValueError(msg)
        forms = {"rubric": POINT_FORMS, "pairwise": PAIR_FORMS, "yes-no": {"": None}}[self.mode]
        if self.answer not in forms:
            msg = f"answer = {self.answer!r}; expected one of {', '.join(map(repr, forms))}"
            raise ValueError(msg)
        if not self.lowest < self.highest:
            msg = f"lowest = {self.lowest} must be below highest = {self.highest}"
            raise ValueError(msg)
        if self.image_format not in ("png", "jpeg"):
            msg = f'image_format = {self.image_format!r}; expected "png" or "jpeg"'
            raise ValueError(msg)

    def question(self, prompt: str) -> str:
        """The text with the prompt in its place; braces in either stay what they are."""
        return self.text.strip().replace(PLACE, prompt)

    def digest(self) -> str:
        """A hash of all that an answer depends on."""
        text = repr([(one.name, getattr(self, one.name)) for one in fields(self)])
        return blake2b(text.encode(), digest_size=8).hexdigest()


def bundled_templates() -> list[str]:
    """Names of the templates that come with the package."""
    folder = files(__package__) / "templates"
    return sorted(one.name.removesuffix(".toml") for one in folder.iterdir())


def read_template(name_or_path: str) -> Template:
    """A template that comes with the package, by its name, or that of a TOML file.

    Raises:
        ValueError: There is no such template, or the file is not one.
    """
    if name_or_path in bundled_templates():
        text = (files(__package__) / "templates" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name_or_path).expanduser().read_text("utf-8")
        except OSError as error:
            known = ", ".join(bundled_templates())
            msg = f"{name_or_path!r} is no template file ({error.strerror}), nor one of {known}"
            raise ValueError(msg) from error
    try:
        return Template(**tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        msg = f"the judge's template {name_or_path} cannot be used: {error}"
        raise ValueError(msg) from error
