"""How often a judge is wrong about pictures of which it is known what they show.

Scenes of the shapes laboratory are drawn, and questions are made of what was drawn, so that every
answer is known. Photographs are another matter: a judge that errs here is not to be trusted there,
and one that does not err here still has to be.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np
from PIL import Image

from stablepref.output.progress import progress_bar

from ..shapes.world.accuracy import Accuracy, with_interval
from ..shapes.world.drawing import render
from ..shapes.world.scenes import COLOURS, MAX_OBJECTS, SHAPES, Scene, sample_scene
from .geneval2 import COUNT, NUMBERS, TEMPLATE, spellings
from .judge import NO, YES, Question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..shapes.world.scenes import Group
    from .judge import Judge

SIDE: Final = 448
"""Of a picture in pixels: what judges are used to, and whole patches for Qwen-VL."""
YES_OR_NO: Final = (YES, NO)
SKILLS: tuple[str, ...] = ("object", "attribute", "count", "position")
COUNTS: Final = tuple(spellings(NUMBERS[n], COUNT) for n in range(1, MAX_OBJECTS + 1))


@final
@dataclass(frozen=True)
class KnownQuestion:
    """A question whose answer is known.

    Attributes:
        skill: "object", "attribute", "count" or "position", in GenEval 2's words.
        question: What is asked.
        right: The place of the right answer among the question's options.
    """

    skill: str
    question: Question
    right: int


@final
@dataclass(frozen=True)
class JudgeErrors:
    """How often a judge was wrong, with 95 % intervals over pictures.

    Attributes:
        all: Over all questions.
        skills: For each skill.
        false_yes: Of the questions whose answer is No, how many were answered Yes.
        false_no: Of those whose answer is Yes, how many were answered No.
    """

    all: Accuracy
    skills: Mapping[str, Accuracy]
    false_yes: Accuracy
    false_no: Accuracy


def known_questions(scene: Scene, rng: random.Random) -> list[KnownQuestion]:
    """Questions about a scene: of each kind that it allows one with the answer Yes and one with No.

    Args:
        scene: What is drawn.
        rng: Chooses what is asked about.
    """
    there = {(group.colour, group.shape) for group in scene.groups}
    asked: list[KnownQuestion] = []
    shown = rng.choice(scene.groups)
    asked.append(_yes_or_no("object", f"Is there a {_name(shown)} in the image?", yes=True))
    colour, shape = rng.choice([(c, s) for c in COLOURS for s in SHAPES if (c, s) not in there])
    asked.append(_yes_or_no("object", f"Is there a {colour} {shape} in the image?", yes=False))
    counted = rng.choice(scene.groups)
    text = f"How many {_plural(counted)} are in the image?"
    question = Question(TEMPLATE.format(text), COUNTS)
    asked.append(KnownQuestion("count", question, counted.count - 1))
    alone = [g for g in scene.groups if [o.shape for o in scene.groups].count(g.shape) == 1]
    if alone:
        one = rng.choice(alone)
        other = rng.choice([name for name in COLOURS if name != one.colour])
        be, noun = ("Is", one.shape) if one.count == 1 else ("Are", _many(one.shape))
        for name, yes in ((one.colour, True), (other, False)):
            asked.append(_yes_or_no("attribute", f"{be} the {noun} {name}?", yes=yes))
    if scene.relation is not None:
        place = rng.randrange(len(scene.groups) - 1)
        first, second = scene.groups[place : place + 2]
        words = {"left of": "to the left of", "above": "above"}[scene.relation]
        for one, other_group, yes in ((first, second, True), (second, first, False)):
            be = "Is" if one.count == 1 else "Are"
            text = f"{be} the {_named(one)} {words} the {_named(other_group)}?"
            asked.append(_yes_or_no("position", text, yes=yes))
    return asked


def judge_errors(judge: Judge, *, scenes: int, seed: int = 0) -> JudgeErrors:
    """Ask a judge about pictures of which everything is known.

    Its answer is the most probable of the options, the first of equals.

    Args:
        judge: The judge.
        scenes: How many pictures.
        seed: Of scenes, pictures and questions.
    """
    rng = random.Random(f"judge {seed}")
    wrong: dict[str, list[list[float]]] = defaultdict(list)
    with progress_bar("judge", total=scenes) as advance:
        for _ in range(scenes):
            scene = sample_scene(rng, "test")
            picture = Image.fromarray(render(scene, seed=rng.getrandbits(48), size=SIDE))
            known = known_questions(scene, rng)
            found = judge(picture, [one.question for one in known])
            per: dict[str, list[float]] = defaultdict(list)
            for one, probabilities in zip(known, found, strict=True):
                error = float(int(np.argmax(probabilities)) != one.right)
                per["all"].append(error)
                per[one.skill].append(error)
                if one.question.options == YES_OR_NO:
                    per["false no" if one.right == 0 else "false yes"].append(error)
            for name, own in per.items():
                wrong[name].append(own)
            advance(1)
    rates = {name: with_interval(own, seed=seed) for name, own in wrong.items()}
    skills = {name: rates[name] for name in SKILLS if name in rates}
    return JudgeErrors(rates["all"], skills, rates["false yes"], rates["false no"])


def error_rows(errors: JudgeErrors) -> Sequence[tuple[str, float, float, float, int]]:
    """What was asked, the error rate in per cent with its bounds, and how many questions."""
    named = {
        "all questions": errors.all,
        **errors.skills,
        "said Yes, true is No": errors.false_yes,
        "said No, true is Yes": errors.false_no,
    }
    return [
        (name, 100 * one.value, 100 * one.low, 100 * one.high, one.trials)
        for name, one in named.items()
    ]


def _yes_or_no(skill: str, text: str, *, yes: bool) -> KnownQuestion:
    return KnownQuestion(skill, Question(TEMPLATE.format(text), YES_OR_NO), 0 if yes else 1)


def _many(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _name(group: Group) -> str:
    return f"{group.colour} {group.shape}"


def _plural(group: Group) -> str:
    return f"{group.colour} {_many(group.shape)}"


def _named(group: Group) -> str:
    return _name(group) if group.count == 1 else _plural(group)
