"""VQAScore with any image-text-to-text model of transformers."""

from __future__ import annotations

import inspect
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, NoReturn, final

import torch
from torch import Tensor, nn

from stablepref.models.rotary import ExactTables
from stablepref.models.unsaved import UnsavedScorer
from stablepref.models.vqa.answers import Answers, contexts, penalised
from stablepref.models.vqa.features import Encoded, EncodedImage, pack, takes_encoded, unpack
from stablepref.models.vqa.forms import SLOT
from stablepref.runtime.inference import inference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stablepref.models.vqa.conversation import Conversation
    from stablepref.models.vqa.forms import Form, Reading
    from stablepref.models.vqa.preprocess import VisionPreprocess

_GRID = "image_grid_thw"
_TYPES = "mm_token_type_ids"


@final
class VQAScorer(UnsavedScorer):
    """VQAScore (Lin et al. 2024, arXiv:2404.01291): P(Yes) to a question about the prompt.

    An image goes through the vision tower once for any number of prompts. The language model
    reads the image's tokens and the question together.

    Args:
        model: An image-text-to-text model of transformers, such as Qwen2.5-VL.
        conversation: How its processor writes a question about an image.
        preprocess: How its processor prepares pictures.
        form: What is asked, and how the answer is read.
        name: What `stablepref.load` calls it.

    Raises:
        ValueError: The model does not give its image features apart, as those of transformers that
            have `get_image_features` do.
    """

    ragged = True

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of transformers, which has no types
        conversation: Conversation,
        preprocess: VisionPreprocess,
        form: Form,
        *,
        name: str,
    ) -> None:
        super().__init__(
            name=name,
            unit="probability of the answer",
            preprocess=preprocess,
            preference_scale=None,
        )
        self.model: Any = model
        self.conversation = conversation
        self.form = form
        body = _body(model, name)
        own = body.get_image_features
        self._of_vision = set(inspect.signature(own).parameters)
        self._of_body = set(inspect.signature(body.forward).parameters)
        # With the signature of its own, which `generate` asks for.
        body.get_image_features = update_wrapper(partial(takes_encoded, own), own)
        self._levels = 1
        self._image_token = int(model.config.image_token_id)
        self._penalty = float(model.generation_config.repetition_penalty or 1)
        self._yes = self.answers(form.answers)
        self._rotary = ExactTables(model)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VQAScorer:
        """Follow devices and number types, but keep the rotary tables in float32."""
        super()._apply(fn, recurse)
        self._rotary.put()
        return self

    # The three stages.

    def collate(self, inputs: Any) -> list[dict[str, Tensor]]:  # noqa: ANN401 - one for each image
        """The inputs of several images, as a list: they differ in size."""
        return list(inputs)

    def encode_inputs(self, inputs: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Image tokens `(batch, 1 + positions, 2 + width)`; see `features.pack`."""
        images: dict[int, EncodedImage] = {}
        for rows in _alike(inputs, self._of_vision):
            names = [name for name in inputs[rows[0]] if name in self._of_vision]
            vision = {name: torch.cat([inputs[row][name] for row in rows]) for name in names}
            vision["pixel_values"] = vision["pixel_values"].to(self.dtype)
            found = _body(self.model, self.name).get_image_features(**vision)
            deep = getattr(found, "deepstack_features", None) or []
            levels = [list(found.pooler_output), *(list(level) for level in deep)]
            self._levels = len(levels)
            for row, each in zip(rows, zip(*levels, strict=True), strict=True):
                own = inputs[row]
                images[row] = EncodedImage(
                    own["ids"],
                    own["types"],
                    own[_GRID][0] if _GRID in own else torch.zeros(3, dtype=torch.long),
                    tuple(one.flatten(0, -2) for one in each),
                )
        return pack([images[row] for row in range(len(images))], self._image_token)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, 1 + tokens)`, int64, of the questions, after the number of them.

        Raises:
            ValueError: A prompt has the model's token for images in it.
        """
        return self.encode_questions([self.form.question.replace(SLOT, one) for one in prompts])

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Probabilities `(batch,)` of the form's answer, computed from logits in float32."""
        return self.answer(image_features, prompt_features, [self._yes] * len(image_features))

    def cached_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Token ids as `encode_prompts` gives them: there is nothing worth remembering."""
        with inference(self):
            return self.encode_prompts(prompts)

    # Any question.

    def encode_questions(self, questions: Sequence[str]) -> Tensor:
        """Token ids `(batch, 1 + tokens)` of whole messages, after the number of them."""
        texts = [self.conversation.question(one) for one in questions]
        longest = max(map(len, texts), default=0)
        rows = [[len(text), *text, *[0] * (longest - len(text))] for text in texts]
        return torch.tensor(rows, device=self.device).reshape(len(texts), 1 + longest)

    def answers(self, spellings: Sequence[str], reading: Reading | None = None) -> Answers:
        """Spellings of an answer, to be read as the form says, or in another way."""
        return Answers(self.conversation.answers(spellings), reading or self.form.reading)

    def answer(
        self, image_features: Tensor, questions: Tensor, answers: Sequence[Answers]
    ) -> Tensor:
        """Probabilities `(batch,)` of answers, float32 or wider, row by row.

        Args:
            image_features: Of `encode_inputs`.
            questions: Of `encode_questions` or `encode_prompts`.
            answers: One for each row.
        """
        return torch.cat(self.weigh(image_features, questions, [[one] for one in answers]))

    def weigh(
        self, image_features: Tensor, questions: Tensor, options: Sequence[Sequence[Answers]]
    ) -> list[Tensor]:
        """Probabilities of the answers that each question may have.

        Args:
            image_features: Of `encode_inputs`.
            questions: Of `encode_questions` or `encode_prompts`.
            options: For each row its possible answers.

        Returns:
            For each row a probability for each of its answers, float32 or wider.
        """
        images = unpack(image_features, self._image_token, self._levels)
        texts = [row[1 : 1 + int(row[0])].tolist() for row in questions]
        asked = [(row, context) for row, own in enumerate(options) for context in contexts(own)]
        logits = self._logits(
            [images[row] for row, _ in asked],
            [texts[row] + list(context) for row, context in asked],
            [len(context) for _, context in asked],
        )
        found: list[dict[tuple[int, ...], Tensor]] = [{} for _ in options]
        for (row, context), after in zip(asked, logits, strict=True):
            lines = after[: len(context) + 1]
            if self.form.processed and self._penalty != 1:
                seen = [*images[row].ids.tolist(), *texts[row]]
                lines = torch.stack(
                    [
                        penalised(line, [*seen, *context[:place]], self._penalty)
                        for place, line in enumerate(lines)
                    ]
                )
            found[row][context] = lines.log_softmax(dim=-1)
        return [
            torch.stack([one.probability(rows) for one in own])
            for own, rows in zip(options, found, strict=True)
        ]

    def next_logits(self, image_features: Tensor, questions: Tensor) -> Tensor:
        """Logits `(batch, vocabulary)` of the first token of the model's answer, unprocessed."""
        images = unpack(image_features, self._image_token, self._levels)
        texts = [row[1 : 1 + int(row[0])].tolist() for row in questions]
        return self._logits(images, texts, [0] * len(images))[:, 0]

    def _logits(
        self, images: Sequence[EncodedImage], texts: Sequence[list[int]], tails: Sequence[int]
    ) -> Tensor:
        """Logits `(batch, 1 + longest tail, vocabulary)` after each text without its tail, and on.

        float32 or wider. Texts are padded on the right, where nothing before is changed by it.
        """
        device = self.device
        rows = [
            torch.cat([image.ids.to(device), torch.tensor(text, device=device)])
            for image, text in zip(images, texts, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._padding())
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        types = torch.zeros_like(ids)
        for row, image in enumerate(images):
            types[row, : len(image.types)] = image.types.to(device)
        extra = {_TYPES: types, "token_type_ids": types}
        if images[0].grid.any():
            extra[_GRID] = torch.stack([image.grid for image in images]).to(device)
        hidden = _body(self.model, self.name)(
            input_ids=ids,
            attention_mask=mask.long(),
            pixel_values=Encoded(images, self.dtype),
            use_cache=False,
            **{name: value for name, value in extra.items() if name in self._of_body},
        ).last_hidden_state
        ends = lengths - torch.tensor(tails, device=device) - 1
        places = ends[:, None] + torch.arange(1 + max(tails), device=device)
        places = places.clamp(max=ids.shape[1] - 1)
        kept = hidden[torch.arange(len(ids), device=device)[:, None], places]
        logits = self.model.get_output_embeddings()(kept)
        return logits if logits.dtype == torch.float64 else logits.float()

    def _padding(self) -> int:
        """The id of a token that fills up rows; it is masked."""
        token = self.conversation.tokenizer.pad_token_id
        return 0 if token is None else int(token)

    # A model of transformers has a folder of its own.

    def config(self) -> NoReturn:
        """Refuse: the model's folder is that of transformers.

        Raises:
            TypeError: Always.
        """
        msg = (
            f"{self.name} is a model of transformers: write its folder by "
            "scorer.model.save_pretrained and scorer.conversation.processor.save_pretrained, and "
            'load it as "vqa:FOLDER"'
        )
        raise TypeError(msg)


def _body(model: Any, name: str) -> Any:  # noqa: ANN401 - a model of transformers without head
    """The model without its head, which knows how images and text are read together."""
    body = getattr(model, str(getattr(model, "base_model_prefix", "model")), None)
    if not callable(getattr(body, "get_image_features", None)):
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        msg = (
            f"{name} is a {kind}, which does not give an image's features apart from the text; "
            "expected a model such as Qwen2.5-VL, Qwen3-VL, LLaVA or SmolVLM"
        )
        raise ValueError(msg)
    return body


def _alike(inputs: Sequence[Mapping[str, Tensor]], names: set[str]) -> list[list[int]]:
    """Rows whose tensors differ in nothing but their first dimension, and so can be joined."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, own in enumerate(inputs):
        shape = tuple((name, own[name].shape[1:]) for name in sorted(names & own.keys()))
        groups.setdefault(shape, []).append(row)
    return list(groups.values())
