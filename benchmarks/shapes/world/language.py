"""Prompts of the shapes laboratory: from scene to words, and from words back to the scene."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, TypeVar

from .scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Group, Scene

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

Choice = TypeVar("Choice")

EXAMPLES = (
    "a red circle",
    "three green triangles on a grey background",
    "a large yellow star and a small black heart",
    "a red circle left of a blue square",
    "two white rings above an orange diamond",
    "from left to right: a red circle, a blue square and a green star",
)

# Two groups have phrases that a longer list has not: "A with B", "A left of B".
_PAIR = 2
_NUMBERS = ("a", "two", "three", "four")
_OPENINGS = ("", "", "a picture of ", "an image of ", "a drawing of ")
_BACKDROPS = ("{} on a {} background", "{} against a {} background", "on a {1} background, {0}")
_JOINTS = (" and ", " with ", " together with ")

# Each relation's ways to put it: forward names the first group first, backward the last one.
_FORWARD = {
    "left of": (
        "{} left of {}",
        "{} to the left of {}",
        "{} on the left of {}",
        "{} on the left and {} on the right",
    ),
    "above": ("{} above {}", "{} over {}", "{} on top of {}", "{} at the top and {} at the bottom"),
}
_BACKWARD = {
    "left of": (
        "{} right of {}",
        "{} to the right of {}",
        "{} on the right of {}",
        "{} on the right and {} on the left",
    ),
    "above": ("{} below {}", "{} under {}", "{} beneath {}", "{} at the bottom and {} at the top"),
}
_FORWARD_ROW = {"left of": "from left to right: ", "above": "from top to bottom: "}
_BACKWARD_ROW = {"left of": "from right to left: ", "above": "from bottom to top: "}


class PromptError(ValueError):
    """A prompt that the grammar of the shapes laboratory does not contain."""

    def __init__(self, prompt: str, reason: str) -> None:
        """Say what was not understood, and show what would be."""
        examples = "\n".join(f"  {example}" for example in EXAMPLES)
        super().__init__(
            f"the shapes laboratory cannot draw {prompt!r}: {reason}.\n"
            f"It knows the shapes {', '.join(SHAPES)}; the colours {', '.join(COLOURS)}; "
            f"and the backgrounds {', '.join(BACKGROUNDS)}. Prompts it can draw:\n{examples}"
        )


def name_group(group: Group) -> str:
    """The words for one group: "a red circle", "an orange star", "two large white rings"."""
    words = [_NUMBERS[group.count - 1], group.size, group.colour, group.shape]
    if group.count > 1:
        words[-1] += "es" if group.shape.endswith("s") else "s"
    elif not group.size and group.colour[0] in "aeiou":
        words[0] = "an"
    return " ".join(word for word in words if word)


def describe(scene: Scene, rng: random.Random | None = None) -> str:
    """A prompt for the scene in lower-case English: the plainest, or a random paraphrase.

    Args:
        scene: what to describe.
        rng: chooses among the paraphrases; None gives the plainest.
    """
    draw = rng or _First()
    names = [name_group(group) for group in scene.groups]
    if scene.relation is None:
        draw.shuffle(names)
        joint = draw.choice(_JOINTS) if len(names) == _PAIR else " and "
        text = joint.join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    else:
        forward = draw.random() < 1 / 2
        ordered = names if forward else names[::-1]
        if len(names) > _PAIR:
            row = (_FORWARD_ROW if forward else _BACKWARD_ROW)[scene.relation]
            text = f"{row}{', '.join(ordered[:-1])} and {ordered[-1]}"
        else:
            phrases = (_FORWARD if forward else _BACKWARD)[scene.relation]
            text = draw.choice(phrases).format(*ordered)
    text = draw.choice(_OPENINGS) + text if ":" not in text else text
    if scene.background is not None:
        backdrops = _BACKDROPS if ":" not in text else _BACKDROPS[:2]
        backdrop = draw.choice(backdrops)
        text = backdrop.format(text, scene.background)
    return text


class _First(random.Random):
    """Stands in for a random generator where the first alternative is always wanted."""

    def random(self) -> float:
        return 0.0

    def shuffle(self, x: object) -> None:
        """Keep the order."""

    def choice(self, seq: SupportsLenAndGetItem[Choice]) -> Choice:
        return seq[0]


_GROUP = (
    rf"(?P<number>an?|one|two|three|four) (?:(?P<size>{'|'.join(SIZES)}) )?"
    rf"(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})(?P<plural>e?s)?"
)
_BARE_GROUP = re.sub(r"\?P<\w+>", "?:", _GROUP)
_OPENING = re.compile("(?:a|an) (?:picture|image|drawing|photo) (?:of|with|showing) ")
_BACKDROP = re.compile(
    rf"(?:(?P<before>.+?),? (?:on|against) an? (?P<late>{'|'.join(BACKGROUNDS)}) background"
    rf"|(?:on|against) an? (?P<early>{'|'.join(BACKGROUNDS)}) background,? (?P<after>.+))"
)


def parse(prompt: str) -> Scene:
    """The scene that a prompt describes; the inverse of `describe` for all its paraphrases.

    Case, repeated spaces and a final full stop do not matter, and "gray" is read as "grey".

    Raises:
        PromptError: the grammar does not contain the prompt; the message shows examples.
    """
    text = " ".join(prompt.lower().split()).rstrip(". ").replace("gray", "grey")
    background = None
    if backdrop := _BACKDROP.fullmatch(text):
        background = backdrop["late"] or backdrop["early"]
        text = backdrop["before"] or backdrop["after"]
    if opening := _OPENING.match(text):
        text = text[opening.end() :]
    phrases, relation = _split_phrases(text)
    groups = tuple(_parse_group(phrase, prompt) for phrase in phrases)
    try:
        return Scene(groups, relation, background)
    except ValueError as error:
        raise PromptError(prompt, str(error)) from error


def _split_phrases(text: str) -> tuple[list[str], str | None]:
    """The words for each group in canonical order, and the relation between them."""
    for backward, rows in ((False, _FORWARD_ROW), (True, _BACKWARD_ROW)):
        for relation, opening in rows.items():
            if text.startswith(opening):
                phrases = re.split(", and |, | and ", text.removeprefix(opening))
                return phrases[::-1] if backward else phrases, relation
    for backward, relations in ((False, _FORWARD), (True, _BACKWARD)):
        for relation, templates in relations.items():
            for template in templates:
                match = re.fullmatch(template.replace("{}", f"({_BARE_GROUP})"), text)
                if match:
                    phrases = list(match.groups())
                    return phrases[::-1] if backward else phrases, relation
    return re.split(", and |, | and | together with | with ", text), None


def _parse_group(phrase: str, prompt: str) -> Group:
    match = re.fullmatch(_GROUP, phrase)
    if match is None:
        raise PromptError(prompt, f"{phrase!r} is not a number, a size, a colour and a shape")
    number = match["number"]
    count = 1 if number in ("a", "an", "one") else _NUMBERS.index(number) + 1
    if (count > 1) != (match["plural"] is not None):
        raise PromptError(prompt, f"number and noun do not agree in {phrase!r}")
    return Group(count, match["colour"], match["shape"], match["size"] or "")
