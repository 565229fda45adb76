"""Answers of judges, in the forms that models really give, and those that mean nothing."""

import math

import pytest

from stablepref.integrations.judges.answers import (
    UnreadableAnswerError,
    read_score,
    read_share,
    yes_probability,
)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("score", "The hand is odd.\nScore: 7.5", 7.5),
        ("score", "I would say Score: 3 at first, but\n**Score:** 6", 6),
        ("score", "score = 10", 10),
        ("score", "<think>Score: 2</think>\nScore: 8/10", 8),
        ("final-score", "[a list]\nFinal Score: 4.25", 4.25),
        (
            "unified-point",
            "Alignment Score (1-5): 2.694700002670288\nCoherence Score (1-5): 3\n"
            "Style Score (1-5): 4.5",
            (2.694700002670288 + 3 + 4.5) / 3,
        ),
        ("unified-point", "*Alignment Score*: 1\nCoherence Score: 2\nStyle Score: 3", 2),
        ("json", '```json\n{"reasoning": "a {b}", "score": [5, 9]}\n```', 7),
        ("json", 'Here: {"score": 4.5}', 4.5),
    ],
)
def test_scores(form: str, text: str, expected: float) -> None:
    assert read_score(form, text, lowest=0, highest=25) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("score", ""),
        ("score", "A fine image."),
        ("score", "Score: high"),
        ("score", "underscore: 5"),
        ("score", "<think>Score: 7</think>"),
        ("final-score", "Score: 3"),
        ("unified-point", "Alignment Score: 3\nStyle Score: 3"),
        ("json", "{not json}"),
        ("json", '{"rating": 4}'),
        ("json", '{"score": "high"}'),
        ("json", '{"score": []}'),
        ("json", '{"score": true}'),
        ("score", "Score: 11"),
        ("score", "Score: -1"),
    ],
)
def test_what_is_no_score(form: str, text: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_score(form, text, lowest=0, highest=10)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("winner", "Winner: second would be wrong.\nWinner: first", 1),
        ("winner", "**Winner: Tie**", 0.5),
        ("winner", "winner: second", 0),
        ("image-is-better", "Image 1 is better.", 1),
        ("image-is-better", "Image 2 is better than Image 1.", 0),
        ("image-is-better", "Both images are equally good.", 0.5),
        (
            "image-is-better",
            "<think>Image 1 is better at first</think><answer>Image 2 is better</answer>",
            0,
        ),
        (
            "unified-pair",
            "Alignment:\nImage 1: 0.8\nImage 2: 0.2\nCoherence:\nImage 1: 0.4\nImage 2: 0.6\n"
            "Style:\nImage 1: 0.5, Image 2: 0.5",
            (0.8 + 0.4 + 0.5) / 3,
        ),
        ("flex", '```json\n{"categories": [], "winner": "Image 2"}\n```', 0),
    ],
)
def test_shares(form: str, text: str, expected: float) -> None:
    assert read_share(form, text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("winner", "The first, I think."),
        ("winner", "Winner: third"),
        ("image-is-better", "Image 3 is better."),
        ("unified-pair", "Image 1: 0.8"),
        ("unified-pair", "Image 1: 0\nImage 2: 0"),
        ("flex", '{"winner": "both"}'),
    ],
)
def test_what_is_no_choice(form: str, text: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_share(form, text)


def test_yes_by_hand() -> None:
    """P(yes) = 0.5 + 0.1, P(no) = 0.2; the rest is something else."""
    tokens = {"Yes": 0.5, " yes": 0.1, "NO": 0.2, "Maybe": 0.15, "yesterday": 0.05}
    logprobs = {token: math.log(probability) for token, probability in tokens.items()}
    assert yes_probability(logprobs) == pytest.approx(0.75)
    assert yes_probability({"▁No.": -0.1}) == 0


def test_neither_yes_nor_no() -> None:
    with pytest.raises(UnreadableAnswerError, match="Maybe"):
        yes_probability({"Maybe": -0.1})
