"""Scorers of a benchmark: reward models by name, and the laboratory's oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from PIL import Image

import stablepref
from stablepref.models.registry import check_model, model_name
from stablepref.output.text import shorten
from stablepref.weights.fingerprint import weights_digest

from ..shapes.oracle.reward import grade_image
from ..shapes.world.language import PromptError, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stablepref.scorer import Scorer

ORACLE: Final = "oracle"

Verdict = float | str
"""A score, or the reason why there is none."""


class Judge(Protocol):
    """What scores decoded images."""

    name: str
    unit: str

    def settings(self) -> dict[str, object]:
        """What its scores depend on, plain JSON values."""

    def __call__(
        self,
        images: Sequence[Image.Image | Tensor],
        prompts: Sequence[str],
        sources: Sequence[object],
    ) -> list[Verdict]:
        """A verdict on each image under its prompt; `sources` are what images were decoded from."""


@final
class ModelJudge:
    """A reward model.

    Args:
        scorer: The model.
        name: In tables.
        batch_size: Images encoded at once; None chooses.
    """

    def __init__(self, scorer: Scorer, *, name: str, batch_size: int | None = None) -> None:
        self.name = name
        self.unit = scorer.unit
        self._scorer = scorer
        self._batch_size = batch_size

    def settings(self) -> dict[str, object]:
        """Its weights, their number type, and the unit of its scores."""
        dtype = str(self._scorer.dtype).removeprefix("torch.")
        return {"weights": weights_digest(self._scorer), "dtype": dtype, "unit": self.unit}

    def __call__(
        self,
        images: Sequence[Image.Image | Tensor],
        prompts: Sequence[str],
        sources: Sequence[object],
    ) -> list[Verdict]:
        """Scores in the model's unit."""
        del sources
        scored = self._scorer.stream(
            list(images),
            list(prompts),
            batch_size=self._batch_size,
            on_error="nan",
            progress=False,
        )
        return [one.error or one.score for one in scored]


@final
class OracleJudge:
    """The laboratory's oracle: 1 if a picture shows all that its prompt names, else 0.

    It reads pixels and is not trained; see `stablepref.benchmarks.shapes.oracle`. Pictures are
    resized to its 64 pixels by area. It understands the laboratory's grammar only.
    """

    name = ORACLE
    unit = "1 correct, 0 not"

    def settings(self) -> dict[str, object]:
        """Its unit; it has no weights."""
        return {"unit": self.unit}

    def __call__(
        self,
        images: Sequence[Image.Image | Tensor],
        prompts: Sequence[str],
        sources: Sequence[object],
    ) -> list[Verdict]:
        """1.0 or 0.0."""
        del sources
        return [self._one(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    def _one(self, image: Image.Image | Tensor, prompt: str) -> Verdict:
        if not isinstance(image, Image.Image):
            return "the oracle reads 8-bit pictures, got float pixels"
        try:
            return float(grade_image(image, prompt).correct)
        except PromptError as error:
            return shorten(str(error).splitlines()[0])


def load_judges(
    scorers: Sequence[str | Judge | None],
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
) -> tuple[Judge, ...]:
    """Judges by name: `oracle`, or anything that `stablepref.load` takes; each name once.

    Args:
        scorers: Names, of which None is the default model; judges are returned as they are.
        device: Where the models run; None takes the process's accelerator, or the CPU.
        dtype: Number type of the models' encoders; None chooses by the device.
        batch_size: Images encoded at once; None chooses.

    Raises:
        ValueError: No scorer is given, one is unknown, or one is named twice.
        UnavailableError: The weights of a model are neither here nor can be downloaded.
    """
    if not scorers:
        msg = "no scorer is given; expected at least one name"
        raise ValueError(msg)
    names = [model_name(s) for s in scorers if s is None or isinstance(s, str)]
    for name in names:
        if names.count(name) > 1:
            msg = f"the scorer {name} is named twice"
            raise ValueError(msg)
        if name != ORACLE:
            check_model(name, None)
    judges: list[Judge] = []
    for scorer in scorers:
        if scorer == ORACLE:
            judge: Judge = OracleJudge()
        elif scorer is None or isinstance(scorer, str):
            model = stablepref.load(scorer, device=device, dtype=dtype)
            name = model.name
            if any(other.name == name for other in judges):  # two trainings of one recipe
                name = f"{name} ({model_name(scorer)})"
            judge = ModelJudge(model, name=name, batch_size=batch_size)
        else:
            judge = scorer
        judges.append(judge)
    return tuple(judges)


def in_laboratory(prompt: str) -> bool:
    """Whether the laboratory's grammar contains a prompt."""
    try:
        parse(prompt)
    except PromptError:
        return False
    return True


def knows_shapes_only(scorer: str) -> bool:
    """Whether a scorer, by its name, is one of the laboratory's, which know nothing of taste."""
    return scorer == ORACLE or "shapes" in scorer
