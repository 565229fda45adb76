"""A vision-language model as a judge: how probable it finds each answer to a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

import stablepref
from stablepref.models.registry import check_model
from stablepref.models.vqa.scorer import VQAScorer
from stablepref.runtime.inference import inference
from stablepref.scoring.batching import BatchLimit
from stablepref.weights.fingerprint import weights_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

    from stablepref.models.vqa.forms import Reading

FAMILY: Final = "vqa:"


class Question(NamedTuple):
    """One question about an image.

    Attributes:
        text: The whole message beside the image.
        options: Spellings of each answer that is weighed.
        reading: How tokens and spellings become one probability.
    """

    text: str
    options: tuple[tuple[str, ...], ...]
    reading: Reading = "whole"


class Judge(Protocol):
    """What answers questions about images."""

    name: str

    def settings(self) -> dict[str, Any]:
        """What its answers depend on, plain JSON values."""

    def __call__(
        self, image: Image.Image, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        """For each question the probability of each of its options."""


@final
class VQAJudge:
    """A `vqa:` model.

    Args:
        scorer: The model. Of its form only this counts: whether the repetition penalty of its
            generation configuration acts on logits.
        batch_size: Questions asked at once; None chooses.
    """

    def __init__(self, scorer: VQAScorer, *, batch_size: int | None = None) -> None:
        self.name = scorer.name
        self._scorer = scorer
        self._limit = BatchLimit.of(scorer, batch_size)

    def settings(self) -> dict[str, Any]:
        """Its weights, their number type, and whether logits are processed."""
        scorer = self._scorer
        return {
            "weights": weights_digest(scorer),
            "dtype": str(scorer.dtype).removeprefix("torch."),
            "processed": scorer.form.processed,
            "resize_first": scorer.form.resize_first,
        }

    def __call__(
        self, image: Image.Image, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        """Probabilities; the image is encoded once.

        Fewer questions are asked at once where memory runs out.

        Raises:
            ValueError: The model cannot use the picture, or a question has its token for images.
        """
        scorer = self._scorer
        with inference(scorer):
            inputs = send_to_device(scorer.preprocess.exact(image), scorer.device)
            features = scorer.encode_inputs(scorer.collate([inputs]))
            rows: list[tuple[float, ...]] = []
            while len(rows) < len(questions):
                part = questions[len(rows) : len(rows) + self._limit.size]
                try:
                    rows += self._weigh(features, part)
                except RuntimeError as error:
                    if len(part) == 1 or not should_reduce_batch_size(error):
                        raise
                    self._limit.size = max(1, len(part) // 2)
                else:
                    continue
                clear_device_cache(garbage_collection=True)
        return rows

    def _weigh(self, features: Tensor, questions: Sequence[Question]) -> list[tuple[float, ...]]:
        """For each question the probability of each of its options, all asked at once."""
        scorer = self._scorer
        rows = scorer.weigh(
            features.expand(len(questions), *features.shape[1:]),
            scorer.encode_questions([one.text for one in questions]),
            [
                [scorer.answers(spellings, one.reading) for spellings in one.options]
                for one in questions
            ],
        )
        return [tuple(row.tolist()) for row in rows]


def load_judge(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
) -> VQAJudge:
    """The judge of a name such as "vqa:Qwen/Qwen3-VL-8B-Instruct,form=geneval2".

    Raises:
        ValueError: It is no `vqa:` model, or the form is unknown.
        UnavailableError: The model is neither here nor can it be downloaded.
    """
    if not name.startswith(FAMILY):
        msg = (
            f"the judge is {name!r}; expected a model that answers questions, written vqa:MODEL, "
            "such as vqa:Qwen/Qwen3-VL-8B-Instruct"
        )
        raise ValueError(msg)
    check_model(name, None)
    scorer = stablepref.load(name, device=device, dtype=dtype)
    assert isinstance(scorer, VQAScorer), "the family's builder makes nothing else"
    return VQAJudge(scorer, batch_size=batch_size)


def spelled(options: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Each option as it is, and with a capital first letter."""
    return tuple(tuple(dict.fromkeys((one, one[:1].upper() + one[1:]))) for one in options)


YES: Final = ("Yes", "yes", " yes", " Yes")
NO: Final = ("No", "no", " no", " No")
