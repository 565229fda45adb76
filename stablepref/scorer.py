"""The contract that every reward model keeps: pixels and prompts in, one score each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from stablepref.images.arrays import require_tensor
from stablepref.images.rgb import check_unit_range
from stablepref.scoring import compare as preference
from stablepref.scoring import stream
from stablepref.scoring.prompt_cache import PromptCache
from stablepref.scoring.prompts import check_prompts
from stablepref.weights import folder as pretrained

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stablepref.preprocess.preprocess import Preprocess
    from stablepref.scoring.compare import Comparison
    from stablepref.scoring.stream import Scored


class Scorer(
    nn.Module,
    ModelHubMixin,
    ABC,
    library_name="stablepref",
    tags=["reward-model", "text-to-image", "human-preference"],
    model_card_template=pretrained.CARD,
):
    """A reward model for text-to-image generation.

    A final subclass supplies three stages, `encode_inputs`, `encode_prompts` and `match`;
    everything else, from differentiable scores to streaming over folders, follows from them.

    Attributes:
        name: What `stablepref.load` calls the model.
        unit: The unit of its scores, the one the model was trained in.
        preprocess: The model's own preprocessing, in its PIL-exact and differentiable forms.
        preference_scale: The factor that turns a difference of scores into the log-odds that a
            person prefers the first image; None if the model was not trained on preferences.
    """

    def __init__(
        self, *, name: str, unit: str, preprocess: Preprocess, preference_scale: float | None
    ) -> None:
        super().__init__()
        self.name = name
        self.unit = unit
        self.preprocess = preprocess
        self.preference_scale = preference_scale
        self._range_checked = False
        self._prompt_cache = PromptCache()

    # The three stages.

    @abstractmethod
    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Image features `(batch, ...)` of preprocessed, normalised inputs `(batch, 3, S, S)`."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompt features `(batch, ...)`, on the model's device."""

    @abstractmethod
    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Scores `(batch,)`, float32 or wider, of image and prompt features row by row."""

    # What a folder written by `save_pretrained` holds.

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that is needed, beside the weights, to build the model again; plain JSON values."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Scorer:
        """A model of this configuration with weights to be loaded; extra files are in `folder`."""

    @abstractmethod
    def save_files(self, folder: Path) -> None:
        """Write the files other than weights and configuration, such as an own vocabulary."""

    # The tensor core.

    @property
    def protocol(self) -> str:
        """Name of the preprocessing protocol."""
        return self.preprocess.protocol

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs are expected."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the encoders' weights."""
        return next(p.dtype for n, p in self.named_parameters() if "logit_scale" not in n)

    def forward(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score pixels against prompts; differentiable in `pixels`.

        Args:
            pixels: Float `(batch, 3, H, W)` RGB in [0, 1] of any size, on the model's device.
            prompts: `batch` strings.

        Returns:
            Scores `(batch,)` in the model's unit, float32 (float64 for a float64 model).

        Raises:
            TypeError: `prompts` is a string, or `pixels` is no float tensor.
            ValueError: The counts differ, the shape is wrong or, on the first call only (so that a
                GPU never waits afterwards), a value lies outside [0, 1].
        """
        require_tensor(pixels)
        check_prompts(prompts, count=len(pixels))
        image_features = self.encode_images(pixels)
        if not self._range_checked:
            low, high = torch.aminmax(pixels.detach())
            check_unit_range(low.item(), high.item())
            self._range_checked = True
        distinct = list(dict.fromkeys(prompts))
        row = {prompt: i for i, prompt in enumerate(distinct)}
        features = self.encode_prompts(distinct)
        if len(distinct) < len(prompts):
            features = features[[row[prompt] for prompt in prompts]]
        return self.match(image_features, features)

    def encode_images(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """Image features `(batch, ...)` of pixels `(batch, 3, H, W)` in [0, 1], differentiable.

        A sequence of `(3, H, W)` tensors of many sizes is taken too.
        """
        return self.encode_inputs(self.preprocess(pixels))

    def cached_prompts(self, prompts: Sequence[str]) -> Tensor:
        """As `encode_prompts`, without gradient, remembering the most recent prompts."""
        return self._prompt_cache.encode(self, prompts)

    def compile_images(self) -> None:
        """Compile the image encoder with `torch.compile`; its first batches then take long."""
        object.__setattr__(self, "encode_inputs", torch.compile(self.encode_inputs))

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: not the compiled encoder, which is bound to this one."""
        return {name: value for name, value in vars(self).items() if name != "encode_inputs"}

    # The user's edge, in modules of their own.

    def score(
        self,
        images: object,
        prompt: str | Iterable[str],
        *,
        batch_size: int | None = None,
        on_error: str | None = None,
        views: int = 0,
        progress: bool | None = None,
    ) -> Tensor:
        """Score one or many images against one prompt, or one prompt each.

        Args:
            images: Anything that holds images: see `stablepref.images`.
            prompt: One string for all images, or one for each.
            batch_size: Images encoded at once; None chooses. Halved when memory runs out.
            on_error: "raise" stops at the first bad image, with the scores so far in the error's
                `scores`; "nan" gives it NaN, warns and goes on; None raises for lists and goes on
                in streams.
            views: Average over this many weak views beside the image itself.
            progress: Show a progress bar; None shows one in a terminal once work takes seconds.

        Returns:
            Scores `(n,)` in the model's unit, float32, on the CPU.

        Raises:
            ImageError: An image cannot be used, or there is none; it names the image.
            ValueError: Prompts and images differ in number, or a prompt is empty.
            TypeError: A prompt is not a string.
        """
        return stream.score(
            self,
            images,
            prompt,
            batch_size=batch_size,
            on_error=on_error,
            views=views,
            progress=progress,
        )

    def stream(
        self,
        images: object,
        prompt: str | Iterable[str],
        *,
        batch_size: int | None = None,
        on_error: str | None = None,
        views: int = 0,
        progress: bool | None = None,
    ) -> Iterator[Scored]:
        """As `score`, but yields one `Scored` after another, in memory that does not grow.

        Each holds the image's index, name and prompt, its score, the spread over views, and the
        error where it has one.
        """
        return stream.stream(
            self,
            images,
            prompt,
            batch_size=batch_size,
            on_error=on_error,
            views=views,
            progress=progress,
        )

    def score_matrix(
        self,
        images: object,
        prompts: Sequence[str],
        *,
        batch_size: int | None = None,
        on_error: str | None = None,
        progress: bool | None = None,
    ) -> Tensor:
        """Scores `(n, m)` of every image against every prompt, from n + m encodes.

        Arguments and errors as in `score`; float32, on the CPU.
        """
        return stream.score_matrix(
            self,
            images,
            prompts,
            batch_size=batch_size,
            on_error=on_error,
            progress=progress,
        )

    def rank(
        self,
        images: object,
        prompt: str,
        *,
        batch_size: int | None = None,
        on_error: str | None = None,
        views: int = 0,
        progress: bool | None = None,
    ) -> list[Scored]:
        """The images from best to worst, each with its index, name, score and spread over views.

        Arguments and errors as in `score`, but one prompt for all; images that could not be scored
        come last.
        """
        return preference.rank(
            self,
            images,
            prompt,
            batch_size=batch_size,
            on_error=on_error,
            views=views,
            progress=progress,
        )

    def compare(self, a: object, b: object, prompt: str, *, views: int = 0) -> Comparison:
        """Which of two images people would prefer, how probably, or that it is a tie.

        See `stablepref.scoring.compare.compare`.
        """
        return preference.compare(self, a, b, prompt, views=views)

    # Files, through huggingface_hub's mixin: save_pretrained, from_pretrained, push_to_hub.

    def _save_pretrained(self, save_directory: Path) -> None:
        pretrained.save_folder(self, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: object,
    ) -> Scorer:
        folder = pretrained.fetch_folder(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return pretrained.load_folder(folder)
