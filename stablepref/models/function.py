"""Any function of images and prompts as a scorer."""

from __future__ import annotations

import inspect
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, NoReturn, final

import numpy as np
import torch
from torch import Tensor, nn

from stablepref.images.eight_bit import eight_bit_view, eight_bit_views
from stablepref.models.joint import JointScorer
from stablepref.output.text import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

AS_THEY_ARE = "as they are"
"""The protocol: pictures reach the function in their own size."""


@final
class FunctionScorer(JointScorer):
    """A scorer whose scores a function gives: a model of another package, a detector, a rule.

    Whatever takes a scorer takes it: `score`, `rank`, `compare`, weak views, best-of-N, bench,
    policy gradients, and, by `stablepref.register` or an entry point, the command line. It has no
    gradient, no towers to train and no folder of its own.

        def warmth(images, prompts):
            return [ImageStat.Stat(image).mean[0] / 255 for image in images]

        scorer = FunctionScorer(warmth, name="warmth", unit="mean red, 0 to 1")

    Args:
        fn: `fn(images, prompts)`, a list of PIL images of mode RGB, each in its own size, and a
            list of as many strings, returns one finite number for each: a sequence, an array or a
            tensor. It is called with batches of up to `batch_size` images, by the thread that
            scores.
        name: What tables, files and errors call it.
        unit: The unit of its numbers; larger ones are better.
        preference_scale: The factor that turns a difference of its numbers into the log-odds that
            a person prefers the first image, where that is known.

    Raises:
        TypeError: `fn` cannot be called, or `name` or `unit` is not a string.
    """

    what = "a function of image and prompt together"

    def __init__(
        self,
        fn: Callable[[list[Image.Image], list[str]], Any],
        *,
        name: str,
        unit: str,
        preference_scale: float | None = None,
    ) -> None:
        given: object = fn
        if not callable(given):
            msg = f"fn is a {type(given).__name__}; expected a function fn(images, prompts)"
            raise TypeError(msg)
        for argument, value in (("name", name), ("unit", unit)):
            if not isinstance(value, str) or not value:
                msg = f"{argument} is {value!r}; expected a string that is not empty"
                raise TypeError(msg)
        super().__init__(
            name=name,
            unit=unit,
            preprocess=AsTheyAre(),
            preference_scale=preference_scale,
            identity=_identity(fn),
        )
        self.fn = fn

    def score_inputs(self, inputs: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """The function's numbers `(batch,)`, float32.

        Raises:
            RuntimeError: The function raises an error, which is named.
            ValueError: It returns another number of numbers.
            TypeError: It returns something that is not numbers.
        """
        images = list(inputs)
        try:
            found = self.fn(images, list(prompts))
        except Exception as error:  # whatever the user's own code raises
            msg = f"{self._called()} raised an error for {_counted(images)}: {error!r}"
            raise RuntimeError(msg) from error
        values = self._numbers(found)
        if values.shape != (len(images),):
            msg = (
                f"{self._called()} returned numbers of shape {tuple(values.shape)} for "
                f"{_counted(images)}; expected one number for each image, ({len(images)},)"
            )
            raise ValueError(msg)
        return values.to(self.device)

    def forward(self, pixels: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Scores `(batch,)` of float pixels `(batch, 3, H, W)` in [0, 1], rounded to 8 bits.

        Raises:
            TypeError: A gradient is asked for, or an argument is of the wrong type.
            ValueError: The counts differ, or the function does not return what it should.
        """
        values = super().forward(pixels, prompts)
        wrong = (~values.isfinite()).nonzero().flatten().tolist()
        if wrong:
            prompt = None if prompts is None else prompts[wrong[0]]
            msg = (
                f"{self._called()} returned {values[wrong[0]].item()} for the prompt "
                f"{prompt!r}, image {wrong[0]} of its batch; expected finite numbers"
            )
            raise ValueError(msg)
        return values

    def config(self) -> NoReturn:
        """Refuse: a function is not saved.

        Raises:
            TypeError: Always.
        """
        msg = (
            f"{self.name} is a function, which is not saved in a folder; give it a name for "
            "stablepref.load by stablepref.register or an entry point of stablepref.scorers"
        )
        raise TypeError(msg)

    def _numbers(self, found: Any) -> Tensor:  # noqa: ANN401 - whatever the function returned
        """Float32 on the CPU."""
        if isinstance(found, Tensor):
            return found.detach().to(device="cpu", dtype=torch.float32)
        try:
            values = np.asarray(found)
        except (TypeError, ValueError):  # rows of several lengths, tensors elsewhere
            values = np.asarray(None)
        if values.dtype.kind not in "biuf":
            msg = (
                f"{self._called()} returned a {type(found).__name__} that does not hold numbers, "
                f"{shorten(repr(found))}; expected one number for each image"
            )
            raise TypeError(msg)
        return torch.from_numpy(values.astype(np.float32))

    def _called(self) -> str:
        return f"the function {_place(self.fn)} of the scorer {self.name!r}"


class AsTheyAre(nn.Module):
    """Pictures as PIL images in their own size, and views of them cut out at whole pixels."""

    protocol = AS_THEY_ARE

    def exact(self, image: Image.Image) -> Image.Image:
        """The image itself."""
        return image

    def views(self, image: Image.Image, boxes: Tensor, hflip: Tensor) -> list[Image.Image]:
        """Views of one picture."""
        plan = zip(boxes.tolist(), hflip.tolist(), strict=True)
        return [eight_bit_view(image, box, flipped=flipped) for box, flipped in plan]

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> list[Any]:
        """PIL images of pixels in [0, 1], rounded to 8 bits; with boxes or flips lists of views."""
        return eight_bit_views(pixels, boxes, hflip)


def _identity(fn: Callable[..., object]) -> str:
    """The function's place and, where it can be read, its source."""
    try:
        text = inspect.getsource(fn)
    except (OSError, TypeError):  # typed at a prompt, or an object with a __call__
        text = ""
    except (SyntaxError, TokenError):  # another text is in the file of that name by now
        text = ""
    return f"{_place(fn)}\n{text}"


def _place(fn: Callable[..., object]) -> str:
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{getattr(fn, '__module__', type(fn).__module__)}.{name}"


def _counted(images: Sequence[object]) -> str:
    return "1 image" if len(images) == 1 else f"{len(images)} images"
