"""What a demonstration's numbers mean, in plain words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ..bench.judges import knows_shapes_only

if TYPE_CHECKING:
    from .finetune import Tuned
    from .result import Demo
    from .stability import Perturbed

TOP: Final = 10
"""The page says how many of this many best candidates are correct."""


def number(value: float | None) -> str:
    """A score as it is shown; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of scores: with its sign."""
    return f"{value:+.3f}"


def verdict(one: Perturbed, seed: int) -> str:
    """What a perturbation did to the choice.

    Args:
        one: The choice under it.
        seed: Of the rival.
    """
    if one.tie:
        return "a tie: it leads by less" if one.stays else f"a tie: seed {seed} leads by less"
    return "stays the best" if one.stays else f"place {one.place}: seed {seed} leads"


def tied(demo: Demo) -> str:
    """How many perturbations end in a tie, for the end of a sentence; empty for none."""
    if not demo.ties:
        return ""
    return "; 1 is a tie" if demo.ties == 1 else f"; {demo.ties} are ties"


def about_choice(demo: Demo) -> str:
    """Best against average, and the lead over the runner-up."""
    scores, chosen = demo.scores, demo.selection
    assert chosen.margin is not None, "there are two candidates"
    assert chosen.spread is not None, "there are two candidates"
    lead = (
        "which is within the {} by which slight crops change the scores of these two: the model "
        "does not prefer the best to the second"
        if chosen.tie
        else "more than the {} by which slight crops change the scores of these two"
    ).format(number(chosen.spread))
    return (
        f"The candidates differ in nothing but their noise. Their scores by {chosen.model} run "
        f"from {number(scores[-1])} to {number(scores[0])}, on average {number(demo.average)}. "
        f"The best lies {number(demo.gain)} above that, {demo.deviations:.1f} standard deviations. "
        f"Its lead over the second is {number(chosen.margin)}, {lead}."
    )


def about_truth(demo: Demo) -> str:
    """Whether the best candidate is correct, and how many others are."""
    indices = [candidate.index for candidate in demo.order]
    right = demo.truth.count(indices)
    if right is None:
        return (
            "Whether the pictures show what the prompt asks for is not known here, only what the "
            f"reward says: {demo.truth.unknown.rstrip('.')}."
        )
    text = (
        "The laboratory's oracle reads the pixels themselves and has learnt nothing. By it, "
        f"{right} of the {len(indices)} candidates show all that the prompt asks for"
    )
    if len(indices) > 2 * TOP:
        text += f", and {demo.truth.count(indices[:TOP])} of the {TOP} best by score"
    if not right:
        return f"{text}. Where no candidate is correct, none can be chosen."
    if demo.truth.correct[indices[0]]:
        return f"{text}. The chosen one does."
    return f"{text}. The chosen one does not: the reward is wrong about it."


def about_stability(demo: Demo) -> str:
    """How often the choice stays, and how much of the order."""
    rows = demo.stability
    rho = [one.correlation for one in rows if not math.isnan(one.correlation)]
    text = (
        "A person's choice would not change if all pictures were cropped a little or saved as "
        "JPEG; a reward's can. Here all candidates are changed in the same way and scored again. "
        f"The best stays the best, by more than the spread, under {demo.stays} of {len(rows)} "
        "perturbations"
    )
    if demo.ties:
        text += f". Under {demo.ties} the first two are within the spread, which is a tie and no "
        text += "preference"
    if lost := len(rows) - demo.stays - demo.ties:
        text += f". Under {lost} another candidate leads by more than the spread"
    if rho:
        text += f". Rank correlations of all scores with the unperturbed ones: {min(rho):.2f} to "
        text += f"{max(rho):.2f}"
    return f"{text}."


def about_finetuning(tuned: Tuned, model: str) -> str:
    """What the fine-tuning was, and what it changed.

    Args:
        tuned: The fine-tuning.
        model: The reward.
    """
    config, gain, (before, after) = tuned.config, tuned.gain, tuned.correct
    text = (
        f"{config.steps} training steps, with {tuned.pictures:,} pictures of {tuned.prompts:,} "
        f"prompts of the laboratory, teach the pipeline to draw in {config.sampling_steps} "
        f"denoising steps without guidance: DRaFT through all of them, on all weights of the "
        f"denoiser, with {model} as the reward. Below are other prompts, none of which was trained "
        f"on; each pair began with the same noise. Of {after.trials} such pictures of "
        f"{after.prompts} prompts {100 * before.value:.1f} % were fully correct before and "
        f"{100 * after.value:.1f} % after: a difference of {100 * gain.value:+.1f} points (95 % "
        f"interval over prompts: {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    )
    if gain.low <= 0 <= gain.high:
        text += ", which is no evidence of any"
    text += ". The mean score went from {} to {}.".format(*map(number, tuned.scores))
    if tuned.scores[1] > tuned.scores[0] and gain.high < 0:
        text += " The reward rose while fewer pictures are correct: it was fooled."
    return " ".join([text, *(f"A sign to look at: {sign}." for sign in tuned.signs)])


def about_model(demo: Demo) -> str:
    """What the numbers do not say."""
    if knows_shapes_only(demo.selection.model):
        return (
            f"This is a laboratory. {demo.selection.model} knows coloured shapes and nothing of "
            "human taste. What is shown is how selection by a reward works and how it fails, not "
            "how people would judge pictures of the world."
        )
    return (
        f"The score is what {demo.selection.model} says. Whether people agree is not measured "
        "here, and scores of other prompts or models do not compare with these."
    )
