"""Agreement within and between annotators, against cases worked by hand and a plain loop."""

import itertools
import random
from pathlib import Path

import pytest
from helpers.commandline import run

from stablepref.data.labels import Answer, Label
from stablepref.evaluation.label_agreement import BETWEEN, WITHIN, label_agreement


def label(
    annotator: str,
    ranks: tuple[int, ...],
    *,
    prompt: str = "p",
    shown: tuple[int, ...] = (0, 1),
    answer: Answer | None = None,
    pair: str = "",
) -> Label:
    images = tuple(f"{prompt}{pair}{name}" for name in range(len(ranks)))
    kind: Answer = answer or ("ranked" if len(set(ranks)) > 1 else "tie")
    number = str(random.Random().random())
    return Label(number, annotator, prompt, images, kind, ranks, shown, 2.0)


def test_two_annotators_by_hand() -> None:
    labels = [
        label("ann", (1, 2), prompt="p"),
        label("ann", (1, 1), prompt="q"),
        label("ann", (1, 2), prompt="r"),
        label("ann", (2, 1), prompt="p"),  # a repeat that changes its mind
        label("ann", (1, 1), prompt="q"),  # and one that does not
        label("bob", (1, 2), prompt="p"),
        label("bob", (2, 1), prompt="q", shown=(1, 0)),
        label("bob", (2, 1), prompt="r", shown=(1, 0)),
    ]
    found = label_agreement(labels)
    (within,) = (one for one in found.within if one.who == ("ann",))
    assert (within.of, within.questions) == (WITHIN, 2)
    assert within.same_order.value == pytest.approx((0 + 0.5) / 2)
    assert within.same_answer.value == pytest.approx((0 + 1) / 2)
    (between,) = found.between
    assert (between.who, between.of, between.questions) == (("ann", "bob"), BETWEEN, 3)
    assert between.same_order.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert between.same_answer.value == pytest.approx(1 / 3)
    ann, bob = found.annotators
    assert (ann.answers, ann.ties, ann.skips, ann.seconds) == (5, 2 / 5, 0, 2.0)
    assert ann.first_shown.value == pytest.approx(2 / 3)  # 1 2 and 1 2 against 2 1
    assert bob.first_shown.value == 1  # always what stood on the left


def test_many_annotators_against_a_loop() -> None:
    rng = random.Random(3)
    names = ("a", "b", "c")
    labels = [
        label(name, tuple(rng.choices((1, 2, 3), k=3)), prompt=f"p{prompt}", pair=str(pair))
        for prompt in range(4)
        for pair in range(3)
        for name in names
    ]
    total = same = counted = 0.0
    questions = {one.key for one in labels}
    for key in questions:
        answers = [one.ranks for one in labels if one.key == key]
        for first, second in itertools.combinations(answers, 2):
            for i, j in itertools.combinations(range(3), 2):
                x, y = first[i] - first[j], second[i] - second[j]
                counted += 1
                total += 0.5 if x * y == 0 else float(x * y > 0)
                same += (x > 0) - (x < 0) == (y > 0) - (y < 0)
    found = label_agreement(labels)
    (everyone,) = (one for one in found.between if one.who == ("all",))
    assert len(found.between) == 4
    assert everyone.questions == len(questions)
    assert everyone.same_order.value == pytest.approx(total / counted)
    assert everyone.same_answer.value == pytest.approx(same / counted)
    assert everyone.same_order.groups == 4  # prompts are drawn, not pairs
    value, low, high = everyone.same_answer.interval()
    assert low < value < high


def test_skips_and_bad_are_counted() -> None:
    labels = [
        label("ann", (1, 1), answer="bad"),
        Label("s", "ann", "q", ("x", "y"), "skip", ()),
    ]
    (ann,) = label_agreement(labels).annotators
    assert (ann.answers, ann.bad, ann.ties, ann.skips) == (1, 1.0, 0.0, 1)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"label": "1", "annotator": "ann", "prompt": "p", "images": ["a", "b"], '
        '"answer": "ranked", "ranks": [1, 2]}\n'
        '{"label": "2", "annotator": "bob", "prompt": "p", "images": ["a", "b"], '
        '"answer": "ranked", "ranks": [1, 2]}\n'
    )
    done = run("data", "agreement", path)
    assert done.returncode == 0, done.stderr
    assert "ann and bob, with each other" in done.stdout
    assert "100.0 (100.0 to 100.0)" in done.stdout
    done = run("data", "agreement", path, "--json")
    assert '"same_answer": {\n    "value": 1.0' in done.stdout.replace("      ", "  ")
