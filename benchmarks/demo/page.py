"""The demonstration as a page: everything inside it, for any width, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image

from stablepref.images.sources import Source
from stablepref.integrations.best_of_n.selection import SHOWN
from stablepref.output.pages import write_template
from stablepref.scoring.page import SMALL, Thumbnail

from . import words as demo_words
from .picture import stacked_dots
from .stability import in_words
from .words import number, signed, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.integrations.best_of_n.folder import Candidate

    from ..shapes.pipeline.sampling import Sample
    from .finetune import Tuned
    from .result import Demo
    from .stability import Perturbed

ROW: Final = 6
"""Pictures in the row of the best, and in that of the worst."""
WIDTH: Final = 400
HEIGHT: Final = 150
"""Size of the plot of scores, in units of its own."""
LABEL: Final = 110
"""Room for the words at the mean, in the same units."""


def write_demo_page(path: Path, demo: Demo) -> None:
    """Write the page.

    Args:
        path: Where; written under a temporary name first.
        demo: What it shows.

    Raises:
        OSError: It cannot be written, or a picture's file is gone.
    """
    chosen, order = demo.selection, demo.order
    right = demo.truth.count(candidate.index for candidate in order)
    cards = [_card(demo, place, one) for place, one in enumerate(order[:SHOWN], start=1)]
    last = range(max(ROW, len(order) - ROW), len(order))
    write_template(
        path,
        "demo.html.j2",
        package="stablepref.benchmarks.demo",
        prompt=chosen.prompt,
        model=chosen.model,
        unit=chosen.unit,
        made=f"{len(chosen.candidates)} candidates, seeds {chosen.seeds[0]} to {chosen.seeds[-1]}, "
        f"{demo.call['num_inference_steps']} denoising steps, guidance "
        f"{demo.call['guidance_scale']:g}",
        best=cards[0],
        tie=bool(chosen.tie),
        facts=_facts(demo, right),
        plot=_plot(demo),
        known=right is not None,
        choice=demo_words.about_choice(demo),
        truth=demo_words.about_truth(demo),
        about_stability=demo_words.about_stability(demo),
        about_model=demo_words.about_model(demo),
        top=cards[:ROW],
        bottom=[_card(demo, place + 1, order[place]) for place in last],
        stability=[_perturbed(demo, one) for one in demo.stability],
        cards=cards,
        left_out=len(order) - len(cards),
        faults=[(one.seed, one.fault) for one in chosen.candidates if one.fault],
        tuned=None if demo.tuned is None else _tuned(demo.tuned, chosen.model),
    )


def _facts(demo: Demo, right: int | None) -> list[tuple[str, str]]:
    """The numbers that matter, and what they are."""
    facts = [
        (signed(demo.gain), f"best {number(demo.best)} against average {number(demo.average)}"),
        (
            f"{demo.stays} of {len(demo.stability)}",
            f"perturbations under which the best stays the best{demo_words.tied(demo)}",
        ),
    ]
    if right is not None:
        which = "is" if demo.truth.correct[demo.order[0].index] else "is not"
        meaning = f"candidates are correct by the oracle; the chosen one {which}"
        facts.insert(1, (f"{right} of {len(demo.order)}", meaning))
    return facts


def _plot(demo: Demo) -> dict[str, object]:
    """Dots of the scores, for an SVG."""
    dots = stacked_dots(demo.scores, width=WIDTH, height=HEIGHT)
    correct = [demo.truth.correct.get(candidate.index) for candidate in demo.order]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "radius": round(dots.radius, 2),
        "dots": [
            (round(x, 2), round(HEIGHT - y, 2), known)
            for (x, y), known in zip(dots.places, correct, strict=True)
        ],
        "mean": round(dots.mean, 2),
        "label": round(min(max(dots.mean, LABEL / 2), WIDTH - LABEL / 2), 2),
        "low": number(demo.scores[-1]),
        "average": number(demo.average),
        "high": number(demo.best),
    }


def _perturbed(demo: Demo, one: Perturbed) -> dict[str, object]:
    return {
        "name": one.name,
        "words": in_words(one.name),
        "stays": one.stays,
        "tie": one.tie,
        "margin": signed(one.margin),
        "spread": number(one.spread),
        "correlation": number(one.correlation),
        "verdict": verdict(one, demo.selection.candidates[one.rival].seed),
    }


def _tuned(tuned: Tuned, model: str) -> dict[str, object]:
    pairs = [
        {"prompt": first.prompt.prompt, "before": _sampled(first), "after": _sampled(last)}
        for first, last in tuned.shown
    ]
    return {"words": demo_words.about_finetuning(tuned, model), "pairs": pairs}


def _sampled(sample: Sample) -> dict[str, object]:
    """What the template shows of a test picture."""
    correct, prompt = sample.grade.correct, sample.prompt.prompt
    picture = Image.fromarray(sample.picture)
    return _pictured(Source(0, prompt, picture), f"{prompt}{_judged(correct)}", correct)


def _card(demo: Demo, place: int, candidate: Candidate) -> dict[str, object]:
    picture = demo.selection.picture(candidate)
    card = _shown(candidate, picture, demo.truth.correct.get(candidate.index))
    return card | {"place": place, "alt": f"Place {place}, {card['alt']}"}


def _shown(candidate: Candidate, picture: Image.Image, correct: bool | None) -> dict[str, object]:
    """What the template shows of a candidate; `correct` is None where it is not known."""
    seed, score = candidate.seed, number(candidate.score)
    source = Source(candidate.index, f"seed {seed}", picture)
    alt = f"seed {seed}, score {score}{_judged(correct)}"
    return {"seed": seed, "score": score, **_pictured(source, alt, correct)}


def _judged(correct: bool | None) -> str:
    return {None: "", True: ", correct", False: ", not correct"}[correct]


def _pictured(source: Source, alt: str, correct: bool | None) -> dict[str, object]:
    """What the template shows of any picture."""
    thumbnail = Thumbnail(source)
    return {
        "correct": correct,
        "thumbnail": thumbnail,
        "small": max(thumbnail.width, thumbnail.height) <= SMALL,
        "alt": alt,
    }
