"""Questions to an OpenAI-compatible endpoint, asked again where it helps, and counted."""

from __future__ import annotations

import base64
import io
import json
import threading
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, final

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    OpenAI,
    OpenAIError,
)

from stablepref.output.text import shorten
from stablepref.weights.hub import UnavailableError

from .answers import UnreadableAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx2
    from openai.types.chat import ChatCompletion
    from PIL import Image

    from .cache import AnswerCache
    from .template import Template

TOP_LOGPROBS: Final = 20
"""As many as the protocol allows."""

OF_ONE_IMAGE: Final = (400, 413, 422)
"""Refusals that may be due to the image or the prompt; others are due to the endpoint."""


@final
@dataclass
class Usage:
    """What asking has taken so far.

    Attributes:
        requests: Questions that the endpoint answered.
        from_cache: Questions whose answers were there already.
        prompt_tokens: Of the answered questions, as the endpoint counts them.
        completion_tokens: Of the answers.
    """

    requests: int = 0
    from_cache: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, *, prompt_price: float, completion_price: float) -> float:
        """What the tokens cost.

        Args:
            prompt_price: Of a million prompt tokens.
            completion_price: Of a million completion tokens, in the same currency.
        """
        return (self.prompt_tokens * prompt_price + self.completion_tokens * completion_price) / 1e6


@final
class Asking:
    """Asks one model one template's question of images.

    Args:
        model: The name that the endpoint knows.
        url: Of the endpoint, up to and with `/v1`.
        template: What is asked.
        cache: Answers from before.
        key: The endpoint's key.
        timeout: Seconds for one answer.
        retries: How often a question is asked again after 408, 409, 429, 5xx, and lost connections.
        http_client: What sends; None for the network.
    """

    def __init__(
        self,
        model: str,
        url: str,
        template: Template,
        cache: AnswerCache,
        *,
        key: str,
        timeout: float,
        retries: int,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self.model, self.url, self.template, self.cache = model, url, template, cache
        self.usage = Usage()
        self._lock = threading.Lock()
        self._client = OpenAI(
            base_url=url, api_key=key, timeout=timeout, max_retries=retries, http_client=http_client
        )

    def ask(
        self,
        images: Sequence[Image.Image],
        prompt: str,
        read: Callable[[dict[str, Any]], float],
    ) -> float | str:
        """The number that an answer means, or the reason why there is none.

        Args:
            images: One, or two in the order in which they are shown.
            prompt: Their prompt.
            read: Makes a number of an answer, `{"text", "logprobs"}`; answers that it cannot read
                are not kept.

        Raises:
            UnavailableError: The endpoint cannot be reached, or refuses all questions.
        """
        data = [_encoded(image, self.template.image_format) for image in images]
        asked = self._asked(data, prompt)
        if (kept := self.cache.get(asked)) is not None:
            with self._lock:
                self.usage.from_cache += 1
            return read(kept)
        try:
            answer = self._answer(data, prompt)
            number = read(answer)
        except UnreadableAnswerError as error:
            return str(error)
        except APITimeoutError:
            return f"{self.model} gave no answer in time"
        except APIConnectionError as error:
            msg = f"the judge's endpoint {self.url} cannot be reached: {error.__cause__ or error}"
            raise UnavailableError(msg) from error
        except APIStatusError as error:
            if error.status_code in OF_ONE_IMAGE or error.status_code >= 500:
                return f"{self.model} answered {error.status_code}: {shorten(error.message)}"
            msg = (
                f"the judge's endpoint {self.url} answered {error.status_code}: "
                f"{shorten(error.message)}; the model is called {self.model!r} here"
            )
            raise UnavailableError(msg) from error
        except OpenAIError as error:
            return f"{self.model}: {shorten(str(error))}"
        self.cache.put(asked, answer)
        return number

    def _answer(self, data: Sequence[bytes], prompt: str) -> dict[str, Any]:
        """The endpoint's answer: its text, and the likeliest first tokens where they are asked for.

        Raises:
            UnreadableAnswerError: It has no text, or no log-probabilities.
            OpenAIError: As the client.
        """
        template = self.template
        kind = template.image_format
        content: list[dict[str, Any]] = [
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(one).decode()}"},
            }
            for one in data
        ]
        content.append({"type": "text", "text": template.question(prompt)})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if template.system:
            messages.insert(0, {"role": "system", "content": template.system})
        by_tokens = template.mode == "yes-no"
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 1 if by_tokens else template.max_tokens,
            "extra_body": template.options or None,
        }
        if by_tokens:
            request |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        found: ChatCompletion = self._client.chat.completions.create(**request)
        with self._lock:
            self.usage.requests += 1
            if found.usage is not None:
                self.usage.prompt_tokens += found.usage.prompt_tokens
                self.usage.completion_tokens += found.usage.completion_tokens
        choice = found.choices[0] if found.choices else None
        if choice is None:
            msg = "the judge's answer is empty"
            raise UnreadableAnswerError(msg)
        logprobs: dict[str, float] = {}
        if by_tokens:
            tokens = choice.logprobs.content if choice.logprobs is not None else None
            if not tokens:
                msg = (
                    "the judge's answer has no log-probabilities, which yes-no needs: its endpoint "
                    "must support logprobs"
                )
                raise UnreadableAnswerError(msg)
            for one in tokens[0].top_logprobs:
                logprobs[one.token] = max(one.logprob, logprobs.get(one.token, one.logprob))
        return {"text": choice.message.content or "", "logprobs": logprobs}

    def _asked(self, data: Sequence[bytes], prompt: str) -> str:
        """A hash of all that the answer depends on."""
        parts = [blake2b(one, digest_size=16).hexdigest() for one in data]
        text = json.dumps([self.url, self.model, self.template.digest(), prompt, parts])
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **({"quality": 95} if kind == "jpeg" else {}))
    return buffer.getvalue()
