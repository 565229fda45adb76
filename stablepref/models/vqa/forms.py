"""The forms of VQAScore by name: what is asked, and how the answer's probability is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, final

SLOT: Final = "{}"
"""Where the prompt goes in a question."""
DEFAULT_FORM: Final = "clean"

Reading = Literal["whole", "mean", "first", "first-each"]
"""How several tokens, and several spellings of an answer, become one probability.

- "whole": the sum over spellings of the product of their tokens' probabilities.
- "mean": the geometric mean of the tokens' probabilities, summed over spellings.
- "first": the sum over the different first tokens of the spellings.
- "first-each": the same, a token that begins several spellings counted once for each of them.
"""


@final
@dataclass(frozen=True)
class Form:
    """One way to ask and to read the answer.

    Attributes:
        name: What `form=` calls it.
        question: The user's message beside the image, with `{}` for the prompt.
        answers: Spellings of the answer whose probability is the score.
        reading: See `Reading`.
        processed: Whether logits pass the repetition penalty of the model's generation
            configuration, as those in `generate(..., output_scores=True).scores` have.
        resize_first: Whether Pillow resizes pictures before the processor, as qwen_vl_utils does.
        source: Whose form it is.
    """

    name: str
    question: str
    answers: tuple[str, ...]
    reading: Reading
    processed: bool
    resize_first: bool
    source: str


_FIGURE: Final = 'Does this figure show "{}"? Please answer Yes or No.'
_SPELLINGS: Final = ("Yes", "yes", " yes", " Yes")

FORMS: Final = {
    form.name: form
    for form in (
        Form(
            DEFAULT_FORM,
            _FIGURE,
            ("Yes",),
            "whole",
            processed=False,
            resize_first=False,
            source="the question of t2v_metrics 3.1; the model's own probabilities",
        ),
        Form(
            "t2v-3.0",
            'Does this image show "{}"?',
            ("Yes",),
            "first",
            processed=True,
            resize_first=True,
            source="t2v_metrics 3.0 (Qwen2.5-VL)",
        ),
        Form(
            "t2v-3.1",
            _FIGURE,
            ("Yes",),
            "mean",
            processed=True,
            resize_first=True,
            source="t2v_metrics 3.1 (Qwen2.5-VL)",
        ),
        Form(
            "geneval2",
            'Does this image show "{}"? Answer the question with Yes or No.',
            _SPELLINGS,
            "first",
            processed=True,
            resize_first=False,
            source="GenEval 2's VQAScore (Qwen3-VL); equal first tokens are counted once",
        ),
    )
}
"""All forms by name; facts from the code of t2v_metrics and GenEval 2."""


class Choice(NamedTuple):
    """What a name such as "vqa:MODEL,form=NAME,question=TEXT" says.

    Attributes:
        model: A folder, or a repository of the hub.
        form: With the question that was given in place of its own, if one was.
    """

    model: str
    form: Form


_NAME: Final = re.compile(
    r"vqa:(?P<model>.+?)(?:,form=(?P<form>[^,]*))?(?:,question=(?P<question>.*))?", re.DOTALL
)


def choice_of(name: str) -> Choice:
    """The model and the form of a scorer's name; the question is all that follows `question=`.

    Raises:
        ValueError: There is no such form, the question has no `{}`, or no model is named.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["model"].startswith(("form=", "question=")):
        msg = f"{name!r} names no model; expected vqa:MODEL[,form=NAME][,question=TEXT]"
        raise ValueError(msg)
    return Choice(match["model"], form_of(match["form"], match["question"]))


def form_of(name: str | None = None, question: str | None = None) -> Form:
    """A form by its name, with another question where one is given.

    Args:
        name: One of `FORMS`; None for "clean".
        question: With one `{}` for the prompt.

    Raises:
        ValueError: There is no such form, or the question does not have one `{}`.
    """
    name = DEFAULT_FORM if name is None else name
    if name not in FORMS:
        msg = f"there is no form {name!r} of VQAScore; expected one of {', '.join(FORMS)}"
        raise ValueError(msg)
    form = FORMS[name]
    if question is None:
        return form
    if question.count(SLOT) != 1:
        msg = f"the question is {question!r}; expected one {SLOT} in it, for the prompt"
        raise ValueError(msg)
    return replace(form, question=question)
