"""Questions about an image as the tokens that a model's own processor makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor

_PROBE = "Is this so?"
_TYPES = ("mm_token_type_ids", "token_type_ids")
_OF_TEXT = ("input_ids", "attention_mask", *_TYPES)


@final
class Conversation:
    """One user message, an image and then text, in the chat template of a processor.

    The tokens fall into two parts that are made apart: those up to the image's last token, which
    the processor repeats as often as the image has features, and those after it, the question.

    Args:
        processor: The model's own, of transformers.
        image_token: The id of the token that stands for the image.
        name: What errors call the model.

    Raises:
        ValueError: It has no chat template, or the template does not place one image.
    """

    def __init__(self, processor: Any, image_token: int, *, name: str) -> None:  # noqa: ANN401
        if not getattr(processor, "chat_template", None):
            msg = f"{name} has no chat template; expected a model tuned for conversation"
            raise ValueError(msg)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._image_token = image_token
        self._name = name
        self._after = len(self.question(_PROBE))
        ids = self._ids(_PROBE)
        self._before = ids[: len(ids) - self._after - 1]

    def text(self, question: str) -> str:
        """The whole conversation, with one token for the image and the assistant's turn begun."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        message = {"role": "user", "content": content}
        found = self.processor.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
        return str(found)

    def question(self, question: str) -> list[int]:
        """Token ids of all that follows the image.

        Raises:
            ValueError: The question has the model's token for images in it, or the template does
                not place the image.
        """
        ids = self._ids(question)
        places = [place for place, token in enumerate(ids) if token == self._image_token]
        if len(places) != 1:
            token = self.tokenizer.convert_ids_to_tokens(self._image_token)
            msg = (
                f"the question {question!r} gives {self._name} {len(places)} images: expected one "
                f"{token} in the conversation, which the chat template places, and none in the text"
            )
            raise ValueError(msg)
        return ids[places[0] + 1 :]

    def _ids(self, question: str) -> list[int]:
        return list(self.tokenizer(self.text(question), add_special_tokens=False)["input_ids"])

    def answers(self, spellings: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Token ids of each spelling of an answer.

        Raises:
            ValueError: One has no tokens.
        """
        found = []
        for spelling in spellings:
            ids = tuple(self.tokenizer(spelling, add_special_tokens=False)["input_ids"])
            if not ids:
                msg = f"the answer {spelling!r} has no tokens in {self._name}"
                raise ValueError(msg)
            found.append(ids)
        return tuple(found)

    def image(self, image: Image.Image) -> dict[str, Tensor]:
        """A picture's inputs: token `ids` and `types` up to its last token, and its pixels.

        Returns:
            `ids` and `types`, `(positions,)`, and under the processor's own names what the vision
            tower reads, with a first dimension that grows with images.
        """
        return self.split(
            self.processor(text=[self.text(_PROBE)], images=[image], return_tensors="pt")
        )

    def tokens_of_image(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Token ids and types up to the last of so many tokens of an image, as Qwen-VL has them."""
        ids = torch.tensor([*self._before, *[self._image_token] * tokens])
        return ids, (ids == self._image_token).long()

    def split(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of one image, out of what the processor made of it and the probe question."""
        ids = batch["input_ids"][0]
        kept = len(ids) - self._after
        types = next((batch[name][0] for name in _TYPES if name in batch), torch.zeros_like(ids))
        vision = {name: value for name, value in batch.items() if name not in _OF_TEXT}
        return {"ids": ids[:kept], "types": types[:kept], **vision}
