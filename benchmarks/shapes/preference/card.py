"""The model card of the bundled preference model: how it came about, and what it is worth."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stablepref.evaluation.means import GroupMean
from stablepref.evaluation.report import EvaluationReport
from stablepref.output.tables import Table
from stablepref.recipes import RECIPES, TrainConfig

from ..people.settings import HPDV2
from .drawn import ANNOTATORS

_HEAD = """---
library_name: stablepref
license: apache-2.0
tags:
- reward-model
- text-to-image
---

# shapes

A preference model for trying the library and testing pipelines. It begins as `{model}`, a CLIP of
drawn scenes of coloured shapes, and learns from simulated people who ranked such pictures, by
*Stable Preference*. It knows nothing of photographs, of art, or of what real people like: never
judge real pictures by its scores.

## Training

`python -m stablepref.benchmarks.shapes.preference.model --out runs/shapes {options}`

{data}, {steps} steps of {batch} pairs, of them
{order} in step 1, b = {b:g}, tau = {tau:g}, {views} weak view(s) of each picture (crops, never
mirrored), all blocks of both towers, and a logit scale that begins at {scale:g}. Of the weights
after the last step {share:.0%} are taken and the rest of `{model}`, as in WiSE-FT (Wortsman et al.
2022), because what was learnt from annotators costs some of what it knew of prompts.

{chosen}

"""
_CHOSEN = """Rate, share and seed were chosen by agreement with the annotators of {held_out}: the
peak learning rate and the share whose seeds agree best on average, and of its seeds the best one,
which is bundled."""
_ONE = "Agreement with the annotators of {held_out}; there was one training, and nothing to choose:"


class Judged(NamedTuple):
    """A model on test groups.

    Attributes:
        people: By kind of groups, agreement with the annotators' mean ranks.
        oracle: By kind of groups, the report against the true utility.
    """

    people: Mapping[str, GroupMean]
    oracle: Mapping[str, EvaluationReport]


def preference_card(
    config: TrainConfig,
    generators: tuple[int, int],
    pipeline: tuple[int, int],
    *,
    share: float,
    agreement: Mapping[tuple[float, float], Sequence[float]],
    chosen: int,
    start: Judged,
    finals: Sequence[Judged],
) -> str:
    """Write the card, in Markdown.

    Args:
        config: Of the trainings at the chosen rate, but for their seeds.
        generators: Training groups by the generators; validation groups, and test groups of each
            setting.
        pipeline: Training groups that the pipeline drew, or 0; validation groups, and test groups.
        share: Of the trained weights.
        agreement: With the annotators of the validation groups: by rate and share, of each seed.
        chosen: Seed of the model that the card is for.
        start: The model that the trainings began from, on test groups.
        finals: The trained models at the chosen rate, one for each seed.
    """
    groups, held_out = generators
    drawn, drawn_held_out = pipeline
    rates, shares = (list(dict.fromkeys(each)) for each in zip(*agreement, strict=True))
    options = [
        f"--groups {groups} --held-out {held_out} --drawn {drawn}",
        *([f"--drawn-held-out {drawn_held_out}"] if drawn else []),
        *(f"--rate {rate:g}" for rate in rates),
        f"--seeds {len(finals)} --steps {config.steps}",
        *(f"--share {each:g}" for each in shares),
    ]
    if config.model != RECIPES["sp-shapes"].model:
        options += [f"--start {config.model}"]
    if config.mixed_precision is not None:
        options += [f"--mixed-precision {config.mixed_precision}"]
    sources = {
        f"laboratory's generators, ranked by {HPDV2.annotators['train']} person each": groups,
        f"laboratory's pipeline, ranked by {ANNOTATORS} people each": drawn,
    }
    data = " and ".join(
        f"{number} groups of nine pictures by the {source}"
        for source, number in sources.items()
        if number
    )
    judges = f"{held_out} validation groups"
    if drawn:
        judges += f" and of {drawn_held_out} that the pipeline drew, each kind counting alike"
    head = _HEAD.format(
        model=config.model, data=data, options=" ".join(options),
        chosen=(_CHOSEN if len(agreement) * len(finals) > 1 else _ONE).format(held_out=judges),
        share=share, steps=config.steps, batch=config.batch_size, order=config.order_steps,
        b=config.b, tau=config.tau, views=config.views, scale=config.logit_scale or float("nan"),
    )  # fmt: skip
    taken = (config.learning_rate, share)
    tried = Table(
        columns=["rate", "share", *(f"seed {seed}" for seed in range(len(finals))), "mean"],
        rows=[
            [
                _bold(f"{setting[0]:g}", when=setting == taken),
                _bold(f"{setting[1]:g}", when=setting == taken),
                *(
                    _bold(f"{value:.2%}", when=(setting, seed) == (taken, chosen))
                    for seed, value in enumerate(values)
                ),
                f"{np.mean(values):.2%}",
            ]
            for setting, values in agreement.items()
        ],
        marked=True,
    )
    agreements = Table(
        columns=["with", config.model, "shapes", "all seeds"],
        rows=_agreement(chosen, start, finals),
        marked=True,
    )
    disturbed = Table(
        columns=["perturbation", config.model, "shapes", f"{config.model} flips", "shapes flips"],
        rows=_disturbed(start.oracle[HPDV2.name], finals[chosen].oracle[HPDV2.name]),
    )
    tested = f"{held_out} test groups of each kind of data"
    if drawn:
        tested += f", {drawn_held_out} of `drawn`, the pipeline's"
    return (
        f"{head}{tried.markdown()}\n"
        f"## Agreement\n\nOn {tested}, with 95 % bootstrap intervals over prompts; the last column "
        "is the mean and standard deviation over the seeds at the chosen rate and share.\n\n"
        f"{agreements.markdown()}\n"
        "## Under perturbations\n\nAgreement with the truth on the test groups of "
        f"`{HPDV2.name}`, and the pairs whose order changes.\n\n{disturbed.markdown()}"
    )


def _agreement(chosen: int, start: Judged, finals: Sequence[Judged]) -> list[list[str]]:
    rows = []
    for setting in start.people:
        for title, value in (
            (f"the truth, `{setting}`", lambda each, s=setting: each.oracle[s].pairwise),
            (f"ten annotators' mean, `{setting}`", lambda each, s=setting: each.people[s]),
        ):
            values = [value(each).value for each in finals]
            rows.append(
                [
                    title,
                    _with_interval(value(start)),
                    _with_interval(value(finals[chosen])),
                    _spread(values),
                ]
            )
    return rows


def _disturbed(start: EvaluationReport, final: EvaluationReport) -> list[list[str]]:
    rows = [["none", f"{start.accuracy:.2%}", f"{final.accuracy:.2%}", "", ""]]
    for before, after in zip(start.disturbed, final.disturbed, strict=True):
        values = (before.accuracy, after.accuracy, before.flips, after.flips)
        rows.append([before.name, *(f"{each.value:.2%}" for each in values)])
    return rows


def _bold(text: str, *, when: bool) -> str:
    return f"**{text}**" if when else text


def _with_interval(mean: GroupMean) -> str:
    value, low, high = mean.interval()
    return f"{value:.2%} ({100 * low:.2f} to {100 * high:.2f})"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2%}"
    return f"{np.mean(values):.2%}, SD {100 * np.std(values, ddof=1):.2f}"
