"""Prompts: one for all or one each; checked at once where possible, streamed where not."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.tiny import tiny_clip

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.scoring.prompts import check_prompts, cut_prompt, match_prompts, pair_prompts


def sources(count: int) -> Iterator[Source]:
    """Images that nobody decodes."""
    return (Source(index, f"{index}.png", b"") for index in range(count))


def pairs(count: int, prompts: object, known: int | None = None) -> list[tuple[int, str]]:
    """Positions and prompts as they are paired."""
    assert isinstance(prompts, Iterable)
    paired = pair_prompts(sources(count), prompts, count=known)
    return [(source.index, prompt) for source, prompt in paired]


@pytest.mark.parametrize("known", [None, 2])
def test_one_prompt_for_all_or_one_each(known: int | None) -> None:
    assert pairs(2, "a cat", known) == [(0, "a cat"), (1, "a cat")]
    for each in (["a", "b"], iter("ab"), np.array(["a", "b"]), {"a": 0, "b": 1}.keys()):
        assert pairs(2, each, known) == [(0, "a"), (1, "b")]


def test_what_can_be_checked_is_checked_before_the_first_image() -> None:
    cases: list[tuple[Any, type[Exception], str]] = [
        (["a"], ValueError, r"1 prompts for 2 images.*the string itself"),
        (["a", "b", "c"], ValueError, "3 prompts for 2 images"),
        ([], ValueError, "list of prompts is empty"),
        ("", ValueError, "the prompt is empty"),
        (" \n", ValueError, "the prompt is empty"),
        (["a", " "], ValueError, "prompt 1 is empty"),
        (["a", "b\ud800"], ValueError, "prompt 1 is no valid text: position 1"),
        (["a", None], TypeError, "prompt 1 must be a string, got NoneType"),
        ([["a"], "b"], TypeError, r"prompt 0 must be a string, got list: \['a'\]"),
        (["a", float("nan")], TypeError, "prompt 1 must be a string, got float: nan"),
        (b"a cat", TypeError, "got bytes"),
        ({"a", "b"}, TypeError, "got set"),
        ({"a": 1, "b": 2}, TypeError, "got dict"),
        (None, TypeError, "got NoneType"),
        (7, TypeError, "got int"),
    ]
    for prompts, kind, text in cases:
        with pytest.raises(kind, match=text):
            pair_prompts(sources(2), prompts, count=2)


def test_counts_are_compared_at_the_end_where_they_are_not_known() -> None:
    for prompts in (["a", "b"], iter("ab")):
        paired = pair_prompts(sources(3), prompts)
        assert [prompt for _, prompt in itertools.islice(paired, 2)] == ["a", "b"]
        with pytest.raises(ValueError, match=r"prompts ended after 2, but there is an image 2 \(2"):
            next(paired)
    for prompts in (["a", "b", "c"], iter("abc")):
        paired = pair_prompts(sources(2), prompts)
        assert [prompt for _, prompt in itertools.islice(paired, 2)] == ["a", "b"]
        with pytest.raises(ValueError, match="images ended after 2, but there are more prompts"):
            next(paired)
    with pytest.raises(ValueError, match="images ended after 2"):
        pairs(2, itertools.repeat("a"))


def test_neither_side_is_read_ahead() -> None:
    read = []

    def endless(name: str) -> Iterator[str]:
        for number in itertools.count():
            read.append(f"{name}{number}")
            yield f"{name}{number}"

    images = (Source(i, name, b"") for i, name in enumerate(endless("image")))
    paired = pair_prompts(images, endless("prompt"))
    assert read == []
    for number in range(3):
        assert next(paired)[1] == f"prompt{number}"
        assert len(read) == 2 * (number + 1)


def test_a_bad_prompt_in_a_stream_spoils_only_its_own_image() -> None:
    stream: Any = iter(["a", "", "c", None])
    paired = list(pair_prompts(sources(4), stream))
    assert [prompt for _, prompt in paired] == ["a", "", "c", "None"]
    assert [source.name for source, _ in paired] == ["0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(ImageError, match=r"^image 1 \(1\.png\): its prompt is empty"):
        decode(paired[1][0])
    with pytest.raises(ImageError, match=r"^image 3 .*its prompt must be a string, got NoneType"):
        decode(paired[3][0])
    assert paired[2][0].value == b""


def test_batches() -> None:
    assert check_prompts(("a", "b"), count=2) == ["a", "b"]
    assert check_prompts(["a"]) == ["a"]
    with pytest.raises(TypeError, match=r"got the string 'a cat';.*\[prompt\] \* 5"):
        check_prompts("a cat", count=5)
    with pytest.raises(TypeError, match=r"got the string 'abcde'"):  # five letters, five images
        check_prompts("abcde", count=5)
    with pytest.raises(ValueError, match="2 prompts for 5 images"):
        check_prompts(["a", "b"], count=5)
    with pytest.raises(ValueError, match="empty; pass one prompt"):
        check_prompts([], count=0)
    with pytest.raises(TypeError, match=r"got the string '.{80,120}\.\.\..{80,120}'?;"):
        check_prompts("x" * 5000)


def test_lazy_prompts_are_not_touched() -> None:
    lazy: Any = iter(["", 5])
    assert match_prompts(lazy, 9) is lazy
    assert list(lazy) == ["", 5]


def test_a_text_of_megabytes_is_cut_before_it_is_tokenised() -> None:
    ordinary = "a  red circle, " * 250
    assert cut_prompt(ordinary, 77) is ordinary
    huge = "\n  a   cat " + "x" * 10**7
    assert cut_prompt(huge, 77) == "a cat " + "x" * (4928 - 6)
    assert len(cut_prompt("word " * 10**6, 512)) == 64 * 512
    assert cut_prompt(" " * 10**6 + "a cat", 77) == "a cat"


def test_cutting_changes_no_tokens() -> None:
    """What CLIP reads of a long text is read from its beginning."""
    scorer = tiny_clip()
    text = "A painting of a fox; " * 400
    tokens = [scorer.tokenizer.sot_token_id, *scorer.tokenizer.encode(text)]
    with pytest.warns(UserWarning, match="more than"):
        found = scorer.tokenize([text])[0]
    assert found[:-1].tolist() == tokens[: len(found) - 1]
