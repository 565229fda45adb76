"""Prompts checked and matched with images: one for all of them, or one each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import cast

from stablepref.images.sources import Source, UnusableImageError
from stablepref.output.text import shorten

LONGEST_PROMPT = 4096

# These iterate, but over something other than prompts in order.
_UNORDERED = (bytes, bytearray, Mapping, set, frozenset)


def check_prompts(
    prompts: Iterable[str], *, count: int | None = None, needed: bool = True
) -> list[str]:
    """Check the prompts of a batch, one for each of its images.

    Args:
        prompts: a sequence of strings; not one string, whose letters would be taken for prompts.
        count: how many there have to be; None takes any number above 0.
        needed: whether the scores depend on prompts; if not, an empty text stands for one that is
            None or empty.

    Returns:
        The prompts as a list.

    Raises:
        TypeError: `prompts` is a string or has no order, or one of them is not a string.
        ValueError: none, too few or too many, or one of them is empty.
    """
    if isinstance(prompts, str):
        advice = "[prompt]" if count is None else f"[prompt] * {count}"
        message = (
            f"expected a list of prompts, one for each image, got the string "
            f"{shorten(repr(prompts))}; for the same prompt everywhere pass {advice}"
        )
        raise TypeError(message)
    _check_container(prompts)
    listed = list(prompts) if needed else ["" if _is_nothing(one) else one for one in prompts]
    if not listed:
        message = "the list of prompts is empty; pass one prompt for each image"
        raise ValueError(message)
    for index, prompt in enumerate(listed):
        reason = _fault(prompt) if needed or prompt else None
        if reason is not None:
            message = f"prompt {index} {reason}"
            raise ValueError(message) if isinstance(prompt, str) else TypeError(message)
    if count is not None and len(listed) != count:
        message = (
            f"{len(listed)} prompts for {count} images; pass one for each image, or, where one "
            "prompt serves all of them, the string itself"
        )
        raise ValueError(message)
    return listed


def match_prompts(
    prompts: str | Iterable[str | None] | None, count: int | None = None, *, needed: bool = True
) -> Iterable[object]:
    """Check all that can be checked before the first image, and give one prompt for each image.

    Args:
        prompts: one string for all images, a collection with one for each, or a lazy iterable
            (a generator, say), which is not touched.
        count: number of images, None if that is not known yet.
        needed: whether the scores depend on prompts; if not, they may be None or empty.

    Returns:
        An iterable of prompts: endless for a single string; checked for a collection; the lazy
        iterable itself, unchecked.

    Raises:
        TypeError: as in `check_prompts`, or neither a string nor an iterable.
        ValueError: as in `check_prompts`.
    """
    if prompts is None and not needed:
        return repeat("")
    if isinstance(prompts, str):
        reason = _fault(prompts) if needed else None
        if reason is not None:
            message = f"the prompt {reason}"
            raise ValueError(message)
        return repeat(prompts)
    _check_container(prompts)
    if not isinstance(prompts, Collection):
        return cast("Iterable[object]", prompts)
    return check_prompts(cast("Collection[str]", prompts), count=count, needed=needed)


def pair_prompts(
    sources: Iterable[Source],
    prompts: str | Iterable[str | None] | None,
    *,
    count: int | None = None,
    needed: bool = True,
) -> Iterator[tuple[Source, str]]:
    """Pair each image with its prompt, reading neither ahead.

    What can be checked without an image is checked at once (`match_prompts`). In a lazy iterable,
    a prompt that is empty or no string spoils only its own image: its source then holds the
    reason, and `decode` reports it as it reports an unreadable file.

    Args:
        sources: images, as from `iter_sources`.
        prompts: one string for all, or one for each image.
        count: number of images, None if that is not known yet (`count_sources`).
        needed: whether the scores depend on prompts; if not, they may be None or empty, and an
            empty text stands for them.

    Returns:
        An iterator over (source, prompt).

    Raises:
        TypeError: as in `match_prompts`, at once.
        ValueError: as in `match_prompts`, at once; or from the iterator, when images and prompts
            turn out to differ in number, after the pairs that there are.
    """
    matched = match_prompts(prompts, count, needed=needed)
    if not needed:
        matched = ("" if _is_nothing(one) else one for one in matched)
    return _pairs(sources, matched, exact=not isinstance(prompts, str | None), needed=needed)


def cut_prompt(prompt: str, tokens: int) -> str:
    """A prompt that cannot keep a tokenizer busy for minutes: the text itself unless it is huge.

    Byte-pair encoding of one long word takes time by the square of its length.

    Args:
        prompt: Text.
        tokens: How many tokens of it the model reads.

    Returns:
        The prompt, if it has up to 64 characters for each token, or 4,096: CLIP's longest token has
        32, and a word of more than 100 is one unknown token to BERT. A longer one with single
        spaces, and cut there.
    """
    longest = max(LONGEST_PROMPT, 64 * tokens)
    return prompt if len(prompt) <= longest else " ".join(prompt.split())[:longest]


def _pairs(
    sources: Iterable[Source], prompts: Iterable[object], *, exact: bool, needed: bool
) -> Iterator[tuple[Source, str]]:
    waiting = iter(prompts)
    paired = 0
    for source in sources:
        try:
            prompt = next(waiting)
        except StopIteration:
            message = (
                f"the prompts ended after {paired}, but there is an image {source.index} "
                f"({shorten(source.name)}); pass one prompt for each image"
            )
            raise ValueError(message) from None
        paired += 1
        reason = None if prompt == "" and not needed else _fault(prompt)
        if isinstance(source.value, UnusableImageError):
            yield source, prompt if isinstance(prompt, str) else ""
        elif reason is not None:
            fault = UnusableImageError(f"its prompt {reason}")
            yield replace(source, value=fault), prompt if isinstance(prompt, str) else repr(prompt)
        else:
            assert isinstance(prompt, str)
            yield source, prompt
    nothing = object()
    if exact and next(waiting, nothing) is not nothing:
        message = (
            f"the images ended after {paired}, but there are more prompts; pass one prompt for "
            "each image (a prompt that serves all of them as a string)"
        )
        raise ValueError(message)


def _is_nothing(prompt: object) -> bool:
    """Whether a prompt is missing or empty."""
    return prompt is None or (isinstance(prompt, str) and not prompt.strip())


def _check_container(prompts: object) -> None:
    """Refuse what is no ordered iterable of prompts."""
    if isinstance(prompts, _UNORDERED) or not isinstance(prompts, Iterable):
        message = (
            "prompts must be one string or an ordered iterable of strings, got "
            f"{type(prompts).__name__}"
        )
        raise TypeError(message)


def _fault(prompt: object) -> str | None:
    """Say what is wrong with one prompt, or None."""
    if not isinstance(prompt, str):
        return f"must be a string, got {type(prompt).__name__}: {shorten(repr(prompt))}"
    if not prompt.strip():
        return "is empty; every image needs a prompt to be scored against"
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # a file name or bytes that were decoded by force
        return f"is no valid text: position {error.start} holds half a character, {prompt!r:.200}"
    return None
