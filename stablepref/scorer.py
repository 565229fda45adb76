"""The contract that every reward model keeps: pixels and prompts in, one score each out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from stablepref.images.arrays import require_tensor
from stablepref.images.rgb import check_unit_range
from stablepref.models.registry import class_of_kind
from stablepref.scoring import compare, stream
from stablepref.scoring.prompt_cache import PromptCache
from stablepref.scoring.prompts import check_prompts
from stablepref.weights.folder import CARD, load_folder, save_folder
from stablepref.weights.hub import fetch_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stablepref.scoring.compare import Comparison
    from stablepref.scoring.contract import BatchOptions, Preprocessing, ScoreOptions
    from stablepref.scoring.ranking import Ranking
    from stablepref.scoring.stream import Scored
    from stablepref.scoring.towers import Towers


class Scorer(
    nn.Module,
    ModelHubMixin,
    ABC,
    library_name="stablepref",
    tags=["reward-model", "text-to-image", "human-preference"],
    model_card_template=CARD,
):
    """A reward model for text-to-image generation.

    A final subclass supplies three stages, `encode_inputs`, `encode_prompts` and `match`;
    everything else, from differentiable scores to streaming over folders, follows from them. What
    differs between models beyond that the scorer answers itself, by the methods and attributes
    below: nothing else asks of which class it is.

    Attributes:
        kind: What configurations that the class saves call it, under "scorer"; a class declares
            its own, so that `stablepref.load` finds the class of a folder.
        name: What `stablepref.load` calls the model.
        unit: The unit of its scores, the one the model was trained in.
        preprocess: The model's own preprocessing, in its PIL-exact and differentiable forms.
        preference_scale: The factor that turns a difference of scores into the log-odds that a
            person prefers the first image; None if the model was not trained on preferences.
        needs_prompt: Whether the score depends on the prompt.
        joint: Whether `score_inputs` reads image and prompt together, without gradient: then there
            are no features that could be kept, and an image is read again for each of its prompts.
        ragged: Whether features differ in size between batches, so that rows of two batches do not
            go into one tensor.
        predicts_uncertainty: Whether `predict` gives each score a standard deviation that was
            trained with it.
    """

    kind: ClassVar[str] = ""
    needs_prompt: bool = True
    joint: bool = False
    ragged: bool = False
    predicts_uncertainty: bool = False

    def __init__(
        self, *, name: str, unit: str, preprocess: Preprocessing, preference_scale: float | None
    ) -> None:
        super().__init__()
        scale: object = preference_scale
        real = isinstance(scale, int | float) and not isinstance(scale, bool)
        if scale is not None and not (real and 0 < preference_scale < math.inf):  # type: ignore[operator]
            msg = f"preference_scale is {scale!r}; expected a finite number above 0, or None"
            raise ValueError(msg)
        self.name = name
        self.unit = unit
        self.preprocess = preprocess
        self.preference_scale = preference_scale
        self._range_checked = False
        self._prompt_cache = PromptCache()

    # The three stages, and how inputs become a batch.

    @abstractmethod
    def encode_inputs(self, inputs: Any) -> Tensor:  # noqa: ANN401 - what `collate` gives
        """Image features `(batch, ...)` of a batch that `collate` made."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompt features `(batch, ...)`, on the model's device."""

    @abstractmethod
    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Scores `(batch,)`, float32 or wider, of image and prompt features row by row."""

    def predict(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Scores and logarithms of their standard deviations, `(batch, 2)`, if it predicts them."""
        msg = f"{self.name} predicts no standard deviation of its scores, as hps-v3 does"
        raise ValueError(msg)

    def collate(self, inputs: Any) -> Any:  # noqa: ANN401 - the model's own kind of inputs
        """A batch out of the inputs of several images, for `encode_inputs`.

        Models whose inputs are not equal squares override it.

        Args:
            inputs: For each image what `preprocess` makes of one; or a tensor of all of them,
                `(batch, ...)`, which is a batch already.
        """
        return inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))

    # What a folder written by `save_pretrained` holds.

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that is needed, beside the weights, to build the model again; plain JSON values.

        Under "scorer" stands the class's `kind`.
        """

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Scorer:
        """A model of this configuration with weights to be loaded; extra files are in `folder`."""

    @abstractmethod
    def save_files(self, folder: Path) -> None:
        """Write the files other than weights and configuration, such as an own vocabulary."""

    # What training asks.

    def towers(self) -> Towers:
        """The image and the text tower, of which training moves the last blocks.

        Raises:
            ValueError: The model does not have them.
        """
        msg = (
            f"{self.name} is a {type(self).__name__}, which does not have an image and a text "
            "tower to train; expected a CLIP, BLIP or ImageReward model"
        )
        raise ValueError(msg)

    def add_lora(self, *, rank: int, seed: int) -> None:
        """Train matrices of low rank in place of blocks, and what a model trains beside them."""
        msg = f"{self.name} has no place for matrices of rank {rank} (seed {seed}): leave them out"
        raise ValueError(msg)

    def weights_to_save(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a saved folder holds of the state dict: the weights that `from_config` builds."""
        return state

    def checkpoint_activations(self) -> None:
        """Keep only each block's input for the backward pass, and compute the rest again.

        Raises:
            ValueError: The model has no towers.
        """
        self.towers()
        msg = f"{self.name}, a {type(self).__name__}, does not checkpoint its activations"
        raise ValueError(msg)

    def after_step(self) -> None:
        """Called after each optimiser step, to bring weights back within their bounds."""

    @property
    def log_scale(self) -> nn.Parameter | None:
        """The logarithm of the factor between cosine and score, where that is a weight."""
        return None

    # The tensor core.

    @property
    def protocol(self) -> str:
        """Name of the preprocessing protocol."""
        return self.preprocess.protocol

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs are expected."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the encoders' weights."""
        weights = (weight for weight in self.parameters() if weight is not self.log_scale)
        return next((weight.dtype for weight in weights), torch.float32)

    @property
    def widest_bytes(self) -> int:
        """Of the largest intermediate result of one image in the image encoder; 0 if not known.

        On a CPU as many images are encoded at once as keep it in the cache.
        """
        return 0

    def forward(self, pixels: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Score pixels against prompts; differentiable in `pixels`.

        Args:
            pixels: Float `(batch, 3, H, W)` RGB in [0, 1] of any size, on the model's device.
            prompts: `batch` strings; None for scorers that use none.

        Returns:
            Scores `(batch,)` in the model's unit, float32 (float64 for a float64 model).

        Raises:
            TypeError: `prompts` is a string, or `pixels` is not a float tensor.
            ValueError: The counts differ, the shape is wrong or, on the first call only (so that a
                GPU never waits afterwards), a value lies outside [0, 1].
        """
        require_tensor(pixels)
        if prompts is None and not self.needs_prompt:
            prompts = [""] * len(pixels)
        given: Any = prompts
        prompts = check_prompts(given, count=len(pixels), needed=self.needs_prompt)
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

        A sequence of `(3, H, W)` tensors of many sizes is accepted too.
        """
        return self.encode_inputs(self.collate(self.preprocess(pixels)))

    def cached_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompt features `(batch, ...)` without gradient; the most recent prompts' are kept."""
        return self._prompt_cache.encode(self, prompts)

    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores `(batch,)` of the inputs of images under their prompts, without gradient.

        All scoring of images goes through here.

        Args:
            inputs: For each image what `preprocess` makes of one.
            prompts: As many strings.

        Raises:
            FailedInputsError: Some of the images got no score, as those that a server rejects.
        """
        return self.match(self.encode_inputs(self.collate(inputs)), self.cached_prompts(prompts))

    def predict_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Scores and logarithms of standard deviations `(batch, 2)`, as `score_inputs`."""
        features = self.encode_inputs(self.collate(inputs))
        return self.predict(features, self.cached_prompts(prompts))

    def compile_images(self) -> None:
        """Compile the image encoder with `torch.compile`; its first batches then take long."""
        object.__setattr__(self, "encode_inputs", torch.compile(self.encode_inputs))

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: not the compiled encoder, which is bound to this one."""
        return {name: value for name, value in vars(self).items() if name != "encode_inputs"}

    # The user's edge.

    def score(
        self,
        images: object,
        prompt: str | Iterable[str | None] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Tensor:
        """Score one or many images against one prompt, or one prompt each.

        Args:
            images: Anything that holds images: see `stablepref.images`.
            prompt: One string for all images, or one for each; None for scorers that use none
                (`needs_prompt` is False).
            **options: `stablepref.scoring.contract.ScoreOptions`: batch_size, on_error, views,
                progress.

        Returns:
            Scores `(n,)` in the model's unit, float32, on the CPU.

        Raises:
            ImageError: An image cannot be used, or there is none; it names the image.
            ValueError: Prompts and images differ in number, a prompt is empty, or an option's
                value is wrong.
            TypeError: A prompt is not a string, or there is no such option.
        """
        return stream.score(self, images, prompt, **options)

    def stream(
        self,
        images: object,
        prompt: str | Iterable[str | None] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Iterator[Scored]:
        """Score like `score`, but yield one `Scored` after another, in bounded memory.

        Each holds the image's index, name and prompt, its score, the spread over views, the
        score's standard deviation where the model predicts one, and the error where there is one.
        """
        return stream.stream(self, images, prompt, **options)

    def score_matrix(
        self, images: object, prompts: Sequence[str], **options: Unpack[BatchOptions]
    ) -> Tensor:
        """Scores `(n, m)` of every image against every prompt, from n + m encodes.

        Args:
            images: Anything that holds images: see `stablepref.images.iter_sources`.
            prompts: The strings of the columns.
            **options: `stablepref.scoring.contract.BatchOptions`: batch_size, on_error, progress.

        Returns:
            float32, on the CPU, in the model's unit.

        Raises:
            ImageError: An image cannot be used, or there is none; it names the image.
            ValueError: A prompt is empty, or an option's value is wrong.
            TypeError: A prompt is not a string, or there is no such option.
        """
        return stream.score_matrix(self, images, prompts, **options)

    def rank(
        self, images: object, prompt: str | None = None, **options: Unpack[ScoreOptions]
    ) -> Ranking:
        """The images from best to worst, each with its index, name, score and spread over views.

        Args:
            images: Anything that holds images: see `stablepref.images.iter_sources`.
            prompt: One string for all; None for scorers that use none.
            **options: `stablepref.scoring.contract.ScoreOptions`.

        Returns:
            All images; those that could not be scored come last.

        Raises:
            ImageError: An image cannot be used, or there is none; it names the image.
            ValueError: The prompt is empty, or an option's value is wrong.
            TypeError: The prompt is not a string, or there is no such option.
        """
        return compare.rank(self, images, prompt, **options)

    def compare(
        self, a: object, b: object, prompt: str | None = None, *, views: int = 0
    ) -> Comparison:
        """Which of two images people would prefer, how probably, or that it is a tie.

        See `stablepref.scoring.compare.compare`.
        """
        return compare.compare(self, a, b, prompt, views=views)

    # Files, through huggingface_hub's mixin: save_pretrained, from_pretrained, push_to_hub.

    @staticmethod
    def of_kind(kind: object) -> type[Scorer]:
        """The class whose saved configurations have `kind` under "scorer".

        Raises:
            ValueError: There is none; the message lists those that are known.
        """
        return class_of_kind(kind, Scorer)  # type: ignore[type-abstract] # never made from it

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(self, save_directory)

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
        folder = fetch_folder(
            model_id,
            cls.of_kind,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return load_folder(folder, cls.of_kind)
