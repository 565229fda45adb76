"""What scoring asks of a scorer, and the options that a user of scoring may give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, final

from stablepref.output.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from PIL import Image
    from torch import Tensor, nn


class BatchOptions(TypedDict, total=False):
    """How images are read and encoded.

    Attributes:
        batch_size: Images encoded at once; None chooses. Halved when memory runs out.
        on_error: "raise" stops at the first bad image, with the scores so far in the error's
            `scores`; "nan" gives it NaN, warns and continues; None raises where the number of
            images is known beforehand, as for lists, and continues in streams.
        progress: Show a progress bar; None shows one in a terminal once work takes seconds.
    """

    batch_size: int | None
    on_error: str | None
    progress: bool | None


class ScoreOptions(BatchOptions, total=False):
    """How images are scored: `BatchOptions` and weak views.

    Attributes:
        views: Average over this many weak views beside the image itself; 0 scores it alone.
    """

    views: int


@final
class FailedInputsError(ValueError):
    """Some inputs of a batch got no score; the others can be scored without them.

    `score_inputs` raises it where images can fail one by one: a judge whose answer cannot be read,
    a server that rejects an image. Scoring then reports these images and scores the rest again.

    Attributes:
        reasons: Why, by the row of the batch; at least one.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        row, reason = next(iter(self.reasons.items()))
        several = f"{len(reasons)} images got no score; the first, " if len(reasons) > 1 else ""
        super().__init__(f"{several}image {row} of its batch: {shorten(reason)}")

    def __reduce__(self) -> tuple[type[FailedInputsError], tuple[dict[int, str]]]:
        """Rebuild from the reasons, so that the error crosses process boundaries."""
        return type(self), (self.reasons,)


class Preprocessing(Protocol):
    """Pictures to a model's inputs, in a PIL-exact and a differentiable form.

    The inputs of one image are whatever `Scorer.collate` makes a batch of: for most models a
    tensor `(3, S, S)`.

    Attributes:
        protocol: Its name.
    """

    protocol: str

    def exact(self, image: Image.Image) -> Any:  # noqa: ANN401 - the model's own kind of inputs
        """The inputs of one PIL image of mode RGB, on the CPU; called from many threads at once.

        Raises:
            ValueError: The picture cannot be used.
        """

    def __call__(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> Any:  # noqa: ANN401 - the model's own kind of inputs
        """The inputs of each picture, or of each of its views, in order.

        Args:
            pixels: RGB in [0, 1]: `(batch, 3, H, W)`, or a sequence of `(3, H_i, W_i)`.
            boxes: `(batch, views, 4)`: left, top, right and bottom of each view, as fractions.
            hflip: Bool `(batch, views)`: which views are mirrored.

        Returns:
            For each picture its inputs; with boxes or flips for each picture those of each view.
        """


class BatchScorer(Protocol):
    """What scoring asks of a scorer; `stablepref.Scorer` documents each of these.

    Attributes:
        name: What `stablepref.load` calls it.
        unit: The unit of its scores.
        preference_scale: The factor that turns a difference of scores into log-odds, or None.
        preprocess: Its own preprocessing.
        needs_prompt: Whether the score depends on the prompt.
        joint: Whether it reads image and prompt together, and so has no features to keep.
        predicts_uncertainty: Whether its scores come with standard deviations.
    """

    name: str
    unit: str
    preference_scale: float | None
    preprocess: Preprocessing
    needs_prompt: bool
    joint: bool
    predicts_uncertainty: bool

    @property
    def device(self) -> torch.device:
        """Where inputs are expected."""

    @property
    def widest_bytes(self) -> int:
        """Of the largest intermediate result of one image; 0 where it is not known."""

    def modules(self) -> Iterator[nn.Module]:
        """Its modules, as of any `torch.nn.Module`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights, as of any `torch.nn.Module`."""

    def collate(self, inputs: Any) -> Any:  # noqa: ANN401 - the model's own kind of inputs
        """A batch out of the inputs of several images."""

    def encode_inputs(self, inputs: Any) -> Tensor:  # noqa: ANN401 - what `collate` gives
        """Image features `(batch, ...)`."""

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompt features `(batch, ...)`."""

    def cached_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompt features `(batch, ...)` without gradient, remembered."""

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Scores `(batch,)` of features row by row."""

    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores `(batch,)` of the inputs of images under their prompts, without gradient.

        Raises:
            FailedInputsError: Some of the images got no score.
        """

    def predict_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores and logarithms of their standard deviations `(batch, 2)`, without gradient."""
