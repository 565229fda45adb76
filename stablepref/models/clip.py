"""Dual-tower scorers on open_clip: CLIP itself, HPS, PickScore and Stable Preference models."""

from __future__ import annotations

import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from stablepref.models.towers import encode_pixels, encode_tokens
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import REDUCED, unit
from stablepref.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

UNIT: Final = "logit_scale x cosine"


@final
class CLIPScorer(Scorer):
    """The scaled cosine of an image tower and a text tower.

    Args:
        backbone: Keyword arguments of open_clip's `CLIP`: embed_dim, vision_cfg, text_cfg and, for
            OpenAI's own weights, quick_gelu.
        preprocess: Preprocessing at the image tower's size.
        name: What `stablepref.load` calls the model.
        preference_scale: 1.0 for a model trained on preferences by cross-entropy on its scores,
            None for a zero-shot model.
        vocabulary: Gzipped byte-pair merges; None for OpenAI's, which come with open_clip.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        *,
        preprocess: Preprocess,
        name: str,
        preference_scale: float | None,
        vocabulary: Path | None = None,
    ) -> None:
        super().__init__(
            name=name, unit=UNIT, preprocess=preprocess, preference_scale=preference_scale
        )
        self.backbone = {"quick_gelu": False, **backbone}
        self.model = CLIP(**self.backbone)
        self.vocabulary = vocabulary
        self.tokenizer = (
            SimpleTokenizer() if vocabulary is None else SimpleTokenizer(str(vocabulary))
        )
        if preprocess.protocol == "pickscore":
            self.tokenizer.clean_fn = clean_as_transformers
        if self.tokenizer.vocab_size != self.model.vocab_size:
            msg = (
                f"the vocabulary has {self.tokenizer.vocab_size} tokens, "
                f"the text tower {self.model.vocab_size}"
            )
            raise ValueError(msg)
        self._truncation_told = False

    @property
    def logit_scale(self) -> Tensor:
        """The factor between cosine and score, a float32 scalar; about 100 in published models."""
        return self.model.logit_scale.float().exp()

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(encode_pixels(self.model.visual, inputs))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of prompts.

        A prompt longer than the text tower's context is cut, its end token kept, with one warning.
        """
        return unit(encode_tokens(self.model, self.tokenize(prompts)))

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """logit_scale x cosine `(batch,)`, computed in float32 with autocast off."""
        with torch.autocast(image_features.device.type, enabled=False):
            scale = self.model.logit_scale.to(image_features.dtype).exp()
            return scale * (image_features * prompt_features).sum(-1)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, context)`, int64 on the CPU, zero-padded after the end token."""
        context = self.model.context_length
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        ids = torch.zeros(len(prompts), context, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = [start, *self.tokenizer.encode(prompt), end]
            if len(tokens) > context:
                self._tell_truncation(prompt, len(tokens))
                tokens = [*tokens[: context - 1], end]
            row[: len(tokens)] = torch.tensor(tokens)
        return ids

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": "clip",
            "name": self.name,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "backbone": self.backbone,
            "vocabulary": self.vocabulary and self.vocabulary.name,
            "unit": self.unit,
            "preference_scale": self.preference_scale,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> CLIPScorer:
        """The model that `config` describes, its weights still to be loaded."""
        vocabulary = config["vocabulary"]
        return cls(
            config["backbone"],
            preprocess=Preprocess(config["protocol"], **config["preprocess"]),
            name=config["name"],
            preference_scale=config["preference_scale"],
            vocabulary=vocabulary and folder / Path(vocabulary).name,
        )

    def save_files(self, folder: Path) -> None:
        """Copy an own vocabulary to `folder`."""
        if self.vocabulary is not None:
            shutil.copyfile(self.vocabulary, folder / self.vocabulary.name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CLIPScorer:
        """Move or cast the module, but keep the logit scale in float32.

        In bfloat16, ln 100 would become 4.59375 and every score 1 % smaller.
        """
        exact = self.model.logit_scale.detach().clone()
        super()._apply(fn, recurse)
        scale = self.model.logit_scale
        if scale.dtype in REDUCED:
            scale.data = exact.to(device=scale.device, dtype=torch.float32)
        return self

    def _tell_truncation(self, prompt: str, tokens: int) -> None:
        if self._truncation_told:
            return
        self._truncation_told = True
        context = self.model.context_length
        warnings.warn(
            f"{self.name} reads {context} tokens and this prompt has {tokens}: the rest is cut, "
            f"the end token kept (said once for this model): {prompt[:60]!r}...",
            stacklevel=2,
        )


def clean_as_transformers(text: str) -> str:
    """The prompt as transformers' CLIP tokenizer reads it, with which PickScore was trained.

    Unicode's composed form (NFC), single spaces, lower case; unlike open_clip it neither
    straightens quotes nor resolves HTML entities.
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()
