"""What scorers have in common that read image and prompt together, and have no gradient."""

from __future__ import annotations

from abc import abstractmethod
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor

from stablepref.images.arrays import require_tensor
from stablepref.models.unsaved import UnsavedScorer
from stablepref.scoring.prompts import check_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scoring.contract import Preprocessing


class JointScorer(UnsavedScorer):
    """A scorer whose scores come from elsewhere: a function, a server, a judge.

    Subclasses are final and supply `score_inputs`. There are no features, no gradient, no towers
    and no folder.

    Attributes:
        what: What it is, in messages: "tiny is WHAT, without gradient and features".

    Args:
        name: What tables, files and errors call it.
        unit: The unit of its scores.
        preprocess: What makes the inputs of `score_inputs` out of images.
        preference_scale: As in `Scorer`.
        identity: Text that differs wherever scores may; fingerprints are made from it.
    """

    what: ClassVar[str]
    joint = True

    def __init__(
        self,
        *,
        name: str,
        unit: str,
        preprocess: Preprocessing,
        preference_scale: float | None,
        identity: str,
    ) -> None:
        super().__init__(
            name=name, unit=unit, preprocess=preprocess, preference_scale=preference_scale
        )
        # In place of weights: it says which device is meant, and what it is in fingerprints.
        digest = bytearray(blake2b(identity.encode(), digest_size=16).digest())
        self.register_buffer("identity", torch.frombuffer(digest, dtype=torch.uint8))
        self.eval()

    @abstractmethod
    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores `(batch,)`, float32, on the scorer's device; see `Scorer.score_inputs`."""

    def forward(self, pixels: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Scores `(batch,)` of float pixels `(batch, 3, H, W)` in [0, 1], without gradient.

        Prompts are None where the scorer needs none.

        Raises:
            TypeError: A gradient is asked for, or an argument is of the wrong type.
            ValueError: The counts differ, or as `score_inputs`.
        """
        require_tensor(pixels)
        if prompts is None and not self.needs_prompt:
            prompts = [""] * len(pixels)
        given: Any = prompts
        prompts = check_prompts(given, count=len(pixels), needed=self.needs_prompt)
        if pixels.requires_grad and torch.is_grad_enabled():
            self._refuse("a gradient to the pixels")
        return self.score_inputs(self.preprocess(pixels), prompts)

    def collate(self, inputs: Any) -> list[Any]:  # noqa: ANN401 - the model's own kind of inputs
        """The inputs themselves, as a list."""
        return list(inputs)

    def encode_inputs(self, inputs: object) -> NoReturn:
        """Refuse: there is nothing between pictures and scores.

        Raises:
            TypeError: Always.
        """
        del inputs
        self._refuse("image features")

    def encode_prompts(self, prompts: Sequence[str]) -> NoReturn:
        """Refuse: there is nothing between prompts and scores.

        Raises:
            TypeError: Always.
        """
        del prompts
        self._refuse("prompt features")

    def match(self, image_features: Tensor, prompt_features: Tensor) -> NoReturn:
        """Refuse: there are no features to match.

        Raises:
            TypeError: Always.
        """
        del image_features, prompt_features
        self._refuse("features to match")

    def config(self) -> NoReturn:
        """Refuse: it is not saved.

        Raises:
            TypeError: Always.
        """
        msg = f"{self.name} is {self.what}, which is not saved in a folder"
        raise TypeError(msg)

    def _refuse(self, wanted: str) -> NoReturn:
        msg = (
            f"{self.name} is {self.what}, without gradient and features: it cannot give {wanted}; "
            "use a model for this"
        )
        raise TypeError(msg)
