"""The text side of a vision-language model, from its official tokenizer and chat template.

Both are files of the model, read as data: the tokenizer by `tokenizers`, the template, in Jinja,
rendered in a sandbox as transformers does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, final

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer

from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOKENIZER_FILE: Final = "tokenizer.json"
CHAT_FILE: Final = "chat_template.json"


@final
class ChatText:
    """Messages as the text that a model reads, and that text as token ids.

    Attributes:
        template: The chat template's text.
        tokenizer: The tokenizer, with the added tokens.
    """

    def __init__(self, tokenizer: str, template: str, added: tuple[str, ...] = ()) -> None:
        """Make it from the files' texts; `read` makes it from the files.

        Args:
            tokenizer: Text of a tokenizer.json.
            template: The chat template.
            added: Special tokens that the tokenizer gets beside its own, after its last.

        Raises:
            ValueError: A text is of another form.
        """
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_str(tokenizer)
        except Exception as error:  # the library's own, of no better class
            msg = f"the tokenizer cannot be used: {error}"
            raise ValueError(msg) from error
        self.tokenizer.add_special_tokens([AddedToken(one, special=True) for one in added])
        self.template = template
        self._texts = (tokenizer, template, added)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            self._compiled = environment.from_string(template)
        except TemplateError as error:
            msg = f"the chat template cannot be used: {error}"
            raise ValueError(msg) from error

    @classmethod
    def read(cls, tokenizer: Path, template: Path, added: tuple[str, ...] = ()) -> ChatText:
        """Read the files.

        Args:
            tokenizer: A tokenizer.json.
            template: A JSON file that holds a chat template under "chat_template":
                chat_template.json, or tokenizer_config.json.
            added: As the constructor's.

        Raises:
            WeightsError: A file cannot be read, or is of another form.
        """
        try:
            return cls(tokenizer.read_text(encoding="utf-8"), _chat_template(template), added)
        except (OSError, ValueError) as error:
            msg = f"cannot use {tokenizer} with {template}: {error}"
            raise WeightsError(msg) from error

    def __len__(self) -> int:
        """Number of tokens, the added ones among them."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The text of messages, and of the beginning of the model's answer.

        Args:
            messages: Each with "role" and "content": parts with "type" "image", or "text" and the
                text under "text".
        """
        return str(self._compiled.render(messages=list(messages), add_generation_prompt=True))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens in it are read as such."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def id_of(self, token: str) -> int:
        """The id of one token.

        Raises:
            WeightsError: There is no such token.
        """
        found = self.tokenizer.token_to_id(token)
        if found is None:
            msg = f"the tokenizer has no token {token!r}: it is another model's"
            raise WeightsError(msg)
        return int(found)

    def save(self, folder: Path) -> None:
        """Write both files, as `ChatText` reads them, without the added tokens."""
        (folder / TOKENIZER_FILE).write_text(self._texts[0], encoding="utf-8")
        template = json.dumps({"chat_template": self.template}, ensure_ascii=False)
        (folder / CHAT_FILE).write_text(template, encoding="utf-8")

    def __reduce__(self) -> tuple[type[ChatText], tuple[str, str, tuple[str, ...]]]:
        """What copies and pickles are made of: compiled templates cannot be pickled."""
        return ChatText, self._texts


def _chat_template(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    template = content.get("chat_template") if isinstance(content, dict) else None
    if not isinstance(template, str):
        msg = f'{path.name} holds no text under "chat_template"'
        raise WeightsError(msg)
    return template
