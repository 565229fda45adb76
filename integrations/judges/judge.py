"""A judge as a scorer: a vision-language model that rates an image, or chooses between two."""

from __future__ import annotations

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import torch
from torch import Tensor

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source, iter_sources
from stablepref.models.function import AsTheyAre
from stablepref.models.joint import JointScorer
from stablepref.scoring.compare import Comparison
from stablepref.scoring.contract import FailedInputsError
from stablepref.scoring.prompts import check_prompts
from stablepref.scoring.ranking import Ranking
from stablepref.scoring.stream import Scored
from stablepref.weights.cache import cache_folder

try:
    from .asking import Asking, Usage
except ImportError as error:
    _msg = f"judges need the client of OpenAI's protocol: pip install 'stablepref[judge]' ({error})"
    raise ImportError(_msg) from error
from .answers import read_score, read_share, yes_probability
from .cache import AnswerCache
from .template import Template, read_template

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx2
    from PIL import Image

    from stablepref.models.entry import Entry
    from stablepref.scoring.contract import ScoreOptions

START: Final = "judge:"
KEYS: Final = ("STABLEPREF_JUDGE_KEY", "OPENAI_API_KEY")
OPTIONS: Final = {"concurrency": int, "retries": int, "timeout": float}


@final
@dataclass
class PositionBias:
    """How a judge of pairs decided when each pair was shown in both orders.

    Attributes:
        pairs: How many pairs were shown in both orders.
        first: Pairs of which it preferred the first image both times, whichever that was.
        second: Pairs of which it preferred the second image both times.
        consistent: Pairs of which it preferred the same image both times, or none both times.
    """

    pairs: int = 0
    first: int = 0
    second: int = 0
    consistent: int = 0

    @property
    def bias(self) -> float:
        """From -1, always the second place, to 1, always the first; 0 for none."""
        return (self.first - self.second) / self.pairs if self.pairs else 0.0

    def note(self, shown: float, swapped: float) -> None:
        """Count a pair by image a's share of the preference when shown first, and second."""
        self.pairs += 1
        self.first += shown > 0.5 > swapped
        self.second += shown < 0.5 < swapped
        self.consistent += (shown > 0.5) == (swapped > 0.5) and (shown < 0.5) == (swapped < 0.5)


@final
class Judge(JointScorer):
    """A model behind an OpenAI-compatible endpoint (vLLM, SGLang, hosted) as a scorer.

    With a template of mode "rubric" the score is the number in the answer; with "yes-no" it is the
    probability of yes among yes and no. With "pairwise" there are no scores of single images:
    `compare` and `rank` show each pair in both orders, and where the order decides, there is no
    preference. An answer that cannot be read is the error of its image, and never a score.

    Answers are kept on disk, so that work that ended early is resumed without asking again.

    Args:
        model: The name that the endpoint knows.
        url: Of the endpoint, such as `http://localhost:8000/v1`; `/v1` is added where the path is
            empty.
        template: What is asked: a `Template`, the path of a TOML file, or "rubric", "yes-no" or
            "pairwise", which come with the package.
        concurrency: Questions that are asked at once.
        retries: How often a question is asked again after 408, 409, 429, 5xx and lost connections.
        timeout: Seconds for one answer.
        cache: File for answers; None keeps them in memory, "" is a file in the cache folder.
        key: The endpoint's key; None takes `$STABLEPREF_JUDGE_KEY` or `$OPENAI_API_KEY`.
        http_client: An httpx2 client in place of the network.

    Attributes:
        usage: Questions and tokens so far.
        position_bias: Of a judge of pairs: what the order of images did so far.

    Raises:
        ValueError: The template cannot be used, or an option is out of range.
    """

    what = "a judge that is asked in words"

    def __init__(
        self,
        model: str,
        url: str,
        *,
        template: Template | str = "rubric",
        concurrency: int = 16,
        retries: int = 5,
        timeout: float = 120.0,
        cache: str | Path | None = "",
        key: str | None = None,
        http_client: httpx2.Client | None = None,
    ) -> None:
        template = template if isinstance(template, Template) else read_template(template)
        if concurrency < 1 or retries < 0 or not timeout > 0:
            msg = (
                f"concurrency={concurrency}, retries={retries}, timeout={timeout}; expected 1 or "
                "more, 0 or more, and above 0"
            )
            raise ValueError(msg)
        units = {
            "rubric": f"rating, {template.lowest:g} to {template.highest:g}",
            "yes-no": "probability of yes",
            "pairwise": "share of preferences",
        }
        super().__init__(
            name=f"{START}{model}",
            unit=units[template.mode],
            preprocess=AsTheyAre(),
            preference_scale=None,
            identity=f"{model} {url} {template.digest()}",
        )
        self.template = template
        self.position_bias = PositionBias()
        self.concurrency = concurrency
        if cache == "":
            cache = cache_folder() / "judges" / "answers.sqlite"
        self._asking = Asking(
            model,
            _endpoint(url),
            template,
            AnswerCache(None if cache is None else Path(cache)),
            key=key or next(filter(None, map(os.environ.get, KEYS)), "none"),
            timeout=timeout,
            retries=retries,
            http_client=http_client,
        )

    @property
    def usage(self) -> Usage:
        """Questions and tokens so far."""
        return self._asking.usage

    def score_inputs(self, inputs: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """The judge's scores `(batch,)`, float32.

        Raises:
            FailedInputsError: Some answers cannot be read, or did not come.
            UnavailableError: The endpoint cannot be reached, or refuses all questions.
            TypeError: The template compares two images.
        """
        if self.template.mode == "pairwise":
            msg = (
                f"{self.name} compares two images and gives no score to one: use compare or rank, "
                "or a template of mode rubric or yes-no"
            )
            raise TypeError(msg)
        found = self._asked([([image], p) for image, p in zip(inputs, prompts, strict=True)])
        if reasons := {row: one for row, one in enumerate(found) if isinstance(one, str)}:
            raise FailedInputsError(reasons)
        return torch.tensor(found, dtype=torch.float32, device=self.device)

    def compare(
        self, a: object, b: object, prompt: str | None = None, *, views: int = 0
    ) -> Comparison:
        """Which of two images the judge prefers in both orders, or a tie.

        Args:
            a: One image, in any form that `stablepref.images` knows.
            b: The other.
            prompt: The prompt of both.
            views: Only for judges that rate single images; see `Scorer.compare`.

        Returns:
            For a judge of pairs: `scores`, each image's share of the preference, 0 to 1, averaged
            over both orders; `spread`, how much the order changed it; and, where the order
            decided, that in `note`.

        Raises:
            ImageError: An image cannot be used, or an answer cannot be read.
            UnavailableError: As `score_inputs`.
            ValueError: `a` or `b` is not one image, or the prompt is empty.
            TypeError: The prompt is not a string.
        """
        if self.template.mode != "pairwise":
            return super().compare(a, b, prompt, views=views)
        (text,) = check_prompts([prompt])  # type: ignore[list-item] # what it is, is the question
        sources = list(iter_sources([a, b]))
        if len(sources) != 2:
            msg = f"compare takes one image for a and one for b, got {len(sources)} images in all"
            raise ValueError(msg)
        images = [_picture(source) for source in sources]
        (both,) = self._both_orders([(images[0], images[1])], text)
        if isinstance(both, str):
            raise ImageError(0, sources[0].name, both)
        return self._comparison(*both)

    def rank(
        self, images: object, prompt: str | None = None, **options: Unpack[ScoreOptions]
    ) -> Ranking:
        """The images from best to worst; a judge of pairs compares each with each, in both orders.

        Its score is an image's share of the preference, averaged over all others. For n images
        that takes n (n - 1) questions.

        Raises:
            ImageError: An image cannot be used, or an answer cannot be read.
            UnavailableError: As `score_inputs`.
        """
        if self.template.mode != "pairwise":
            return super().rank(images, prompt, **options)
        (text,) = check_prompts([prompt])  # type: ignore[list-item] # what it is, is the question
        sources = list(iter_sources(images))
        pictures = [_picture(source) for source in sources]
        pairs = list(itertools.combinations(range(len(sources)), 2))
        both = self._both_orders([(pictures[i], pictures[j]) for i, j in pairs], text)
        shares: list[list[float]] = [[] for _ in sources]
        for (i, j), found in zip(pairs, both, strict=True):
            if isinstance(found, str):
                raise ImageError(i, sources[i].name, f"beside image {j}: {found}")
            share = sum(found) / 2
            shares[i].append(share)
            shares[j].append(1 - share)
        scored = []
        for source, own in zip(sources, shares, strict=True):
            score = math.fsum(own) / len(own) if own else 0.5
            scored.append(Scored(source.index, source.name, text, score, (score,)))
        scored.sort(key=lambda one: -one.score)
        return Ranking(scored, model=self.name, unit=self.unit, images=images)

    def _both_orders(
        self, pairs: Sequence[tuple[Image.Image, Image.Image]], prompt: str
    ) -> list[tuple[float, float] | str]:
        """The first image's share of the preference when shown first, and when shown second."""
        asked = [(list(order), prompt) for a, b in pairs for order in ((a, b), (b, a))]
        answers = iter(self._asked(asked))
        found: list[tuple[float, float] | str] = []
        for shown, swapped in zip(answers, answers, strict=True):
            if isinstance(shown, str) or isinstance(swapped, str):
                found.append(shown if isinstance(shown, str) else str(swapped))
                continue
            self.position_bias.note(shown, 1 - swapped)
            found.append((shown, 1 - swapped))
        return found

    def _comparison(self, shown: float, swapped: float) -> Comparison:
        """What image a's shares in both orders mean."""
        share, spread = (shown + swapped) / 2, abs(shown - swapped)
        margin = 2 * share - 1
        preferred: Literal["a", "b", "tie"] = "tie"
        if abs(margin) > spread:
            preferred = "a" if margin > 0 else "b"
        note = f"{self.name} answers in words, which are no probability"
        if (shown - 0.5) * (swapped - 0.5) < 0:
            place = "first" if shown > 0.5 else "second"
            note = f"position bias: it prefers whichever image is shown {place}; {note}"
        return Comparison(preferred, None, margin, spread, (share, 1 - share), note)

    def _asked(self, questions: Sequence[tuple[list[Image.Image], str]]) -> list[float | str]:
        """Numbers or reasons, several asked at once."""

        def one(question: tuple[list[Image.Image], str]) -> float | str:
            return self._asking.ask(*question, self._read)

        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(one, questions))

    def _read(self, answer: dict[str, Any]) -> float:
        template = self.template
        if template.mode == "yes-no":
            return yes_probability(answer["logprobs"])
        if template.mode == "pairwise":
            return read_share(template.answer, answer["text"])
        return read_score(
            template.answer, answer["text"], lowest=template.lowest, highest=template.highest
        )


def open_judge(entry: Entry, files: Sequence[Path]) -> Judge:
    """The judge of a name such as `judge:MODEL@URL?template=FILE&concurrency=32`.

    Raises:
        ValueError: The name has another form, or an option is unknown or out of range.
    """
    del files
    model, at, url = entry.name.removeprefix(START).rpartition("@http")
    if not at or not model:
        msg = f"{entry.name!r} is not judge:MODEL@URL, such as judge:qwen@http://localhost:8000/v1"
        raise ValueError(msg)
    parts = urlsplit("http" + url)
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "template":
            options[name] = value
        elif name == "cache":
            options[name] = None if value == "none" else value
        elif name in OPTIONS:
            try:
                options[name] = OPTIONS[name](value)
            except ValueError as error:
                msg = f"{entry.name}: {name}={value} is not a number"
                raise ValueError(msg) from error
        else:
            known = ", ".join(("template", "cache", *OPTIONS))
            msg = f"{entry.name}: there is no option {name!r}; expected some of {known}"
            raise ValueError(msg)
    return Judge(model, urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), **options)


def _endpoint(url: str) -> str:
    """The URL that the client takes, which ends in the version of the protocol."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _picture(source: Source) -> Image.Image:
    """A source as the judge sees it; floats are rounded to 8 bits."""
    found = decode(source)
    return AsTheyAre()(found[None])[0] if isinstance(found, Tensor) else found
