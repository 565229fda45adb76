"""Answers of judges in the forms that are in use, to numbers.

A point form gives one score; a pair form gives the first image's share of the preference, 1 where
the first is better, 0 where the second is, 0.5 for a tie. What cannot be read is an error.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

from stablepref.output.text import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NUMBER: Final = r"(-?\d+(?:\.\d+)?)"
SHARES: Final = {"first": 1.0, "second": 0.0, "tie": 0.5}
YES: Final = "yes"
NO: Final = "no"


class UnreadableAnswerError(ValueError):
    """An answer that has not the form that was asked for."""


def _score(text: str) -> float:
    """The number of the last "Score: N"."""
    return float(_last(rf"\bscore\s*[:=]\s*{NUMBER}(?!\.?\d)", text))


def _final_score(text: str) -> float:
    """UnifiedReward's older models: the last "Final Score: N"."""
    return float(_last(rf"\bfinal\s+score\s*[:=]\s*{NUMBER}(?!\.?\d)", text))


def _unified_point(text: str) -> float:
    """UnifiedReward 2.0: the mean of alignment, coherence and style."""
    names = ("alignment", "coherence", "style")
    lines = rf"\b{{}}\s+score\s*(?:\(1-5\))?\s*[:=]\s*{NUMBER}"
    return math.fsum(float(_last(lines.format(name), text)) for name in names) / len(names)


def _json_score(text: str) -> float:
    """JSON with a key "score": a number, or a list of them, whose mean it is."""
    found = _json(text).get("score")
    numbers: list[Any] = found if isinstance(found, list) else [found]
    if not numbers or not all(type(one) in (int, float) for one in numbers):
        raise _unreadable(text, 'JSON with a number, or numbers, under "score"')
    return math.fsum(numbers) / len(numbers)


def _winner(text: str) -> float:
    """The last "Winner: first", "second" or "tie"."""
    return SHARES[_last(r"\bwinner\s*[:=]\s*(first|second|tie)\b", text).lower()]


def _image_is_better(text: str) -> float:
    """UnifiedReward's pair rank, and the answer of its Think models."""
    inside = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE)
    text = inside[-1] if inside else text
    found = re.findall(
        r"image\s*([12])\s+is\s+better|(equally\s+good)", _plain(text), re.IGNORECASE
    )
    if not found:
        raise _unreadable(text, '"Image 1 is better" or "Image 2 is better"')
    number, _ = found[-1]
    return {"1": 1.0, "2": 0.0, "": 0.5}[number]


def _unified_pair(text: str) -> float:
    """UnifiedReward 2.0: "Image 1: X" and "Image 2: Y" for each dimension, X / (X + Y) averaged."""
    plain = _plain(text)
    numbers = re.compile(rf"image\s*([12])\s*[:=]\s*{NUMBER}", re.IGNORECASE).findall(plain)
    first, second = ([float(x) for which, x in numbers if which == place] for place in "12")
    good = first and len(first) == len(second)
    if not good or any(a < 0 or b < 0 or a + b <= 0 for a, b in zip(first, second, strict=True)):
        raise _unreadable(text, '"Image 1: X" and "Image 2: Y" for each dimension')
    return math.fsum(a / (a + b) for a, b in zip(first, second, strict=True)) / len(first)


def _flex(text: str) -> float:
    """UnifiedReward Flex: JSON whose "winner" is "Image 1" or "Image 2"."""
    winner = str(_json(text).get("winner", "")).strip().lower()
    shares = {"image 1": 1.0, "image 2": 0.0, "tie": 0.5}
    if winner not in shares:
        raise _unreadable(text, 'JSON with "winner": "Image 1" or "Image 2"')
    return shares[winner]


POINT_FORMS: Final[Mapping[str, Callable[[str], float]]] = {
    "score": _score,
    "final-score": _final_score,
    "unified-point": _unified_point,
    "json": _json_score,
}
PAIR_FORMS: Final[Mapping[str, Callable[[str], float]]] = {
    "winner": _winner,
    "image-is-better": _image_is_better,
    "unified-pair": _unified_pair,
    "flex": _flex,
}


def read_score(form: str, text: str, *, lowest: float, highest: float) -> float:
    """The score of an answer.

    Args:
        form: A name of `POINT_FORMS`.
        text: The answer.
        lowest: The lowest score there is.
        highest: The highest score there is.

    Raises:
        UnreadableAnswerError: It has another form, or the score is out of range.
    """
    score = POINT_FORMS[form](_visible(text))
    if not lowest <= score <= highest:
        msg = f"the judge's score {score:g} is outside {lowest:g} to {highest:g}"
        raise UnreadableAnswerError(msg)
    return score


def read_share(form: str, text: str) -> float:
    """The first image's share of the preference, 0 to 1.

    Raises:
        UnreadableAnswerError: The answer has another form.
    """
    return PAIR_FORMS[form](text if form == "image-is-better" else _visible(text))


def yes_probability(logprobs: Mapping[str, float]) -> float:
    """P(yes) / (P(yes) + P(no)) of an answer's first token, over cases and spaces.

    Args:
        logprobs: Natural logarithms of the probabilities of the likeliest tokens.

    Raises:
        UnreadableAnswerError: Neither is among them.
    """
    totals = {YES: 0.0, NO: 0.0}
    for token, logprob in logprobs.items():
        word = token.strip(" \n\t.\"'▁Ġ").lower()
        if word in totals:
            totals[word] += math.exp(logprob)
    if not sum(totals.values()):
        msg = f"neither yes nor no is among the judge's likeliest tokens, {shorten(repr(logprobs))}"
        raise UnreadableAnswerError(msg)
    return totals[YES] / (totals[YES] + totals[NO])


def _visible(text: str) -> str:
    """What follows the thoughts of a model that shows them."""
    return re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL | re.IGNORECASE)


def _plain(text: str) -> str:
    """Without the marks of Markdown."""
    return re.sub(r"[*_`#]", "", text)


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, _plain(text), re.IGNORECASE)
    if not found:
        raise _unreadable(text, f"a match of {pattern}")
    return str(found[-1])


def _json(text: str) -> dict[str, Any]:
    """The last JSON object of an answer, which may be fenced."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict):
            return value
    raise _unreadable(text, "JSON")


def _unreadable(text: str, expected: str) -> UnreadableAnswerError:
    return UnreadableAnswerError(f"the judge's answer has not {expected}: {shorten(repr(text))}")
