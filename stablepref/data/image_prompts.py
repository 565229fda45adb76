"""Prompts that images bring with them: a caption beside the file, or metadata inside it.

The metadata are those of the AUTOMATIC1111 web interface (its "parameters", in PNG texts or in the
EXIF comment of other formats) and of ComfyUI (its "prompt", a graph of nodes in JSON).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from PIL import ExifTags, Image

from stablepref.images.metadata import read_metadata
from stablepref.images.sources import UnusableImageError, is_url

PromptSource = Literal["caption", "metadata"]
"""Where the prompt of an image is: in a .txt file of its name beside it, or inside it."""

LONGEST_CAPTION: Final = 2**20
"""Bytes of a caption's file that are read at most."""
_SETTINGS: Final = re.compile(r"(?m)^(Negative prompt:|Steps: \d)")
_COMMENTS: Final = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"\0" * 8: "utf-8"}
"""Encodings of an EXIF comment by its first eight bytes (Exif 2.32, UserComment)."""
_SAMPLED: Final = ("positive", "conditioning", "guider")
"""Inputs of ComfyUI's nodes that lead from a sampler to its positive prompt."""
_TEXTS: Final = ("text", "text_g", "t5xxl", "clip_l", "prompt", "string", "value")
"""Inputs of ComfyUI's nodes that hold a text, or the node that makes it."""


def prompt_of(image: object, source: PromptSource) -> str:
    """The prompt that an image brings with it.

    Args:
        image: The path of a file.
        source: Where the prompt is.

    Raises:
        UnusableImageError: It brings none, or it is no file; the message says what was looked for.
        ValueError: `source` is unknown.
    """
    if source not in get_args(PromptSource):
        msg = f"a prompt is taken from caption or metadata, not from {source!r}"
        raise ValueError(msg)
    if not isinstance(image, str | Path) or is_url(image):
        msg = f"a prompt's {source} is looked for with files only: give a manifest of the others"
        raise UnusableImageError(msg)
    return _caption(Path(image)) if source == "caption" else _in_metadata(Path(image))


def _caption(path: Path) -> str:
    file = path.with_suffix(".txt")
    try:
        with file.open("rb") as opened:
            text = opened.read(LONGEST_CAPTION).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"its caption {file} cannot be read: {reason}"
        raise UnusableImageError(msg) from error
    if not text:
        msg = f"its caption {file} is empty"
        raise UnusableImageError(msg)
    return text


def _in_metadata(path: Path) -> str:
    info, exif = read_metadata(path)
    parameters = info.get("parameters")
    if not isinstance(parameters, str):
        parameters = _comment(exif)
    if isinstance(parameters, str) and parameters.strip():
        text = _SETTINGS.split(parameters, maxsplit=1)[0].strip()
        if text:
            return text
    graph = info.get("prompt")
    if isinstance(graph, str):
        texts = sorted(set(_of_graph(graph)))
        if len(texts) == 1:
            return texts[0]
        if texts:
            msg = f"its metadata hold several prompts: {' | '.join(texts):.200}"
            raise UnusableImageError(msg)
    msg = (
        "its metadata hold no prompt; expected the parameters of AUTOMATIC1111's web interface or "
        "a graph of ComfyUI with a sampler"
    )
    raise UnusableImageError(msg)


def _comment(exif: Image.Exif) -> str | None:
    """The EXIF comment, in which formats other than PNG hold what is "parameters" there."""
    value = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes) or value[:8] not in _COMMENTS:
        return None
    encoding = _COMMENTS[value[:8]]
    if encoding == "utf-16" and value[8:10] not in (b"\xff\xfe", b"\xfe\xff"):
        # Of the two orders of bytes the one in which most characters are of the Latin alphabet.
        encoding = "utf-16-be" if value[8::2].count(0) > value[9::2].count(0) else "utf-16-le"
    return value[8:].decode(encoding, errors="replace")


def _of_graph(text: str) -> Iterator[str]:
    """The positive prompt of each sampler of a graph of ComfyUI."""
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(graph, Mapping):
        return
    for node in graph.values():
        inputs = _inputs(node)
        # A sampler has both, or a guider that has them.
        if "positive" in inputs and "negative" in inputs:
            yield from _texts(graph, inputs["positive"], set())
        elif "guider" in inputs:
            yield from _texts(graph, inputs["guider"], set())


def _texts(graph: Mapping[str, object], link: object, seen: set[str]) -> Iterator[str]:
    """Texts that a link `[node, output]` leads to."""
    waiting = [link]
    while waiting:
        link = waiting.pop()
        if isinstance(link, str):
            if link.strip():
                yield link.strip()
            continue
        if not isinstance(link, list) or not link or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        inputs = _inputs(graph.get(str(link[0])))
        texts = [inputs[name] for name in _TEXTS if name in inputs]
        if texts:
            waiting += texts[:1]
        else:
            chosen = [inputs[name] for name in _SAMPLED if name in inputs]
            waiting += chosen or [one for one in inputs.values() if isinstance(one, list)]


def _inputs(node: object) -> Mapping[str, object]:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}
