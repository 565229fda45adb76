"""What the rows of data sets of pairs mean: two images of a prompt, and which one people preferred.

Formats as their makers publish them: HPDv3 (hub ``MizzenAI/HPDv3``), Multimodal RewardBench 2 (hub
``rl-research/multimodal-rewardbench-2``, github ``facebookresearch/MMRB2``), open-image-preferences
(hub ``data-is-better-together/open-image-preferences-v1-binarized`` and ``-results``), Rapidata's
human preferences (hub ``Rapidata``).

Groups hold in their metadata what is known of the votes, in the order of the images: ``votes``, how
many each image got, and ``share``, the part of them from 0 to 1.
"""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from stablepref.data.convert import (
    LeftOutError,
    given,
    id_of,
    plain,
    require_keys,
    resolve_image,
    resolve_images,
)
from stablepref.data.groups import RankedGroup, Ranks, as_list, as_name, as_rank, shown
from stablepref.data.json_values import parsed
from stablepref.data.rows import Row, Rows

RAPIDATA_ASPECTS = ("preference", "coherence", "alignment")
"""What Rapidata's annotators were asked about."""

FIRST, SECOND, TIE = (1, 2), (2, 1), (1, 1)
"""Ranks of two images of which the first, the second or neither is preferred."""

_SIDES = {"A": FIRST, "B": SECOND}
_RESPONSES = {"image_1": FIRST, "image_2": SECOND, "both_good": TIE, "both_bad": TIE}
_CHOICES = {"a": FIRST, "b": SECOND, "tie": TIE}
_MIDDLE_OF_SIX = 3.5  # MMRB2's annotators answer from 1, B by far, to 6, A by far


def hpdv3_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of HPDv3: ``path1`` is always the preferred image.

    ``choice_dist`` holds two numbers of votes in no order that means anything; it and
    ``confidence``, the reliability of the annotators, are null for part of the data.
    """
    require_keys(row, "prompt", "path1", "path2")
    metadata = _kept(row, "confidence", "model1", "model2")
    if row.get("choice_dist") is not None:
        votes = [as_rank(n, "choice_dist") for n in as_list(row["choice_dist"], "choice_dist")]
        metadata |= _votes(sorted(votes, reverse=True), "choice_dist")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images([row["path1"], row["path2"]], folder),
        ranks=FIRST,
        metadata=metadata,
    )


def mmrb2_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of Multimodal RewardBench 2 on the hub.

    Tasks whose prompt holds pictures, and answers that are not one picture, are left out. Each of
    the ``human_annotations``, 1 to 6, is a preference for A above 3.5.
    """
    require_keys(row, "prompt_text", "response_a_images", "response_b_images", "chosen")
    sides = [_only_image(given(row, f"response_{side}_images")) for side in "ab"]
    if given(row, "prompt_images"):
        raise LeftOutError("the prompt holds pictures")
    kept = _kept(row, "prompt_source", "response_a_model", "response_b_model")
    return _mmrb2(row, row["prompt_text"], sides, folder, id_of(row, "pair_id"), kept)


def mmrb2_json_group(row: Row, folder: Path | None) -> RankedGroup:
    """A pair of Multimodal RewardBench 2's own JSON files; as `mmrb2_group`."""
    require_keys(row, "prompt_content", "response_a", "response_b", "chosen")
    prompt = _contents(row["prompt_content"], "prompt_content")
    if any(kind == "image" for kind, _ in prompt):
        raise LeftOutError("the prompt holds pictures")
    answers = [row["response_a"], row["response_b"]]
    if not all(isinstance(answer, Mapping) for answer in answers):
        raise ValueError("response_a and response_b: expected objects with response_content")
    contents = [_contents(answer.get("response_content"), "response_content") for answer in answers]
    sides = [_only_image([value for kind, value in c if kind == "image"]) for c in contents]
    names = zip(("response_a_model", "response_b_model"), answers, strict=True)
    kept = _kept(row, "prompt_source")
    kept |= {name: answer["model_name"] for name, answer in names if "model_name" in answer}
    text = "\n".join(as_name(value) for kind, value in prompt if kind == "text")
    return _mmrb2(row, text, sides, folder, id_of(row, "id"), kept)


def chosen_rejected_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row with a ``chosen`` and a ``rejected`` image, as open-image-preferences' binarized."""
    require_keys(row, "prompt", "chosen", "rejected")
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images([row["chosen"], row["rejected"]], folder),
        ranks=FIRST,
        id=id_of(row, "id"),
        metadata=_kept(
            row, "chosen_model", "rejected_model", "evolution", "category", "sub_category"
        ),
    )


def open_image_preferences_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of open-image-preferences' raw results, each annotator's answer kept.

    As in its binarized form, "both_good" counts for both images, and a winner has more answers than
    the other image and than "both_bad". Images with as many answers are a tie; rows without answers
    or with more "both_bad" are left out.
    """
    require_keys(row, "images", "preference.responses")
    images = row["images"]
    if not isinstance(images, Mapping):
        raise ValueError(f"images is {shown(images)}; expected an object")
    require_keys(images, "image_1", "image_2", "prompt")
    answers = given(row, "preference.responses")
    if not answers:
        raise LeftOutError("nobody answered")
    unknown = [a for a in answers if not isinstance(a, str) or a not in _RESPONSES]
    if unknown:
        raise ValueError(f"an answer is {shown(unknown[0])}; expected {', '.join(_RESPONSES)}")
    both = answers.count("both_good")
    votes = [answers.count(image) + both for image in ("image_1", "image_2")]
    if max(votes) <= answers.count("both_bad"):
        raise LeftOutError("both images are called bad")
    users = given(row, "preference.responses.users")
    return RankedGroup(
        prompt=images["prompt"],
        images=resolve_images([images["image_1"], images["image_2"]], folder),
        ranks=_ranks(*votes),
        id=id_of(row, "id"),
        annotations=tuple(_RESPONSES[answer] for answer in answers),
        annotators=users if len(users) == len(answers) else (),
        metadata=_kept(row, "model_1", "model_2", "category", "sub_category"),
    )


def rapidata_votes_group(row: Row, folder: Path | None) -> RankedGroup:
    """A row of Rapidata's older data sets: ``votes_image1`` and ``votes_image2`` are counts."""
    require_keys(row, "prompt", "image1", "image2", "votes_image1", "votes_image2")
    return _rapidata(row, folder, ("votes_image1", "votes_image2"), counted=True)


def rapidata_weighted_group(row: Row, folder: Path | None, *, aspect: str) -> RankedGroup:
    """A row of Rapidata's newer data sets: shares of votes, weighted by trust, for each aspect.

    Args:
        row: The row.
        folder: Where relative image paths start.
        aspect: One of `RAPIDATA_ASPECTS`.
    """
    names = tuple(f"weighted_results_image{side}_{aspect}" for side in (1, 2))
    require_keys(row, "prompt", "image1", "image2", *names)
    return _rapidata(row, folder, names, counted=False)


def user_pair_rows(rows: Rows) -> Rows:
    """Join rows of single annotators to one row for each prompt and pair of images.

    A row has ``prompt``, ``image_a``, ``image_b``, ``choice`` ("a", "b" or "tie") and may have
    ``user``. Two images are one pair in either order. The group's ranks are those of the majority,
    a tie for one half. Every row is read before the first group follows.
    """
    pairs: dict[tuple[str, ...], dict[str, Any]] = {}
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            require_keys(row, "prompt", "image_a", "image_b", "choice")
            choice = row["choice"]
            ranks = _CHOICES.get(choice.strip().lower()) if isinstance(choice, str) else None
            if ranks is None:
                raise ValueError(f"choice is {shown(choice)}; expected a, b or tie")
            user = id_of(row, "user")
            key = _pair_key(row)
        except ValueError as error:
            yield place, error
            continue
        turned = key[1] > key[2]
        name = (key[0], key[2], key[1]) if turned else key
        first = pairs.setdefault(name, {"place": place, "row": row, "turned": turned, "of": []})
        first["of"].append((ranks if turned == first["turned"] else ranks[::-1], user))
    for found in pairs.values():
        yield found["place"], _merged_users(found["row"], found["of"])


def _merged_users(row: Row, answers: list[tuple[Ranks, str | None]]) -> Row:
    votes = [sum(1.0 if r[i] < r[1 - i] else 0.5 * (r == TIE) for r, _ in answers) for i in (0, 1)]
    users = [user for _, user in answers]
    return {
        "prompt": row["prompt"],
        "images": [row["image_a"], row["image_b"]],
        "ranks": _ranks(*votes),
        "annotations": [ranks for ranks, _ in answers],
        "annotators": users if None not in users else None,
        "metadata": _kept(row, "model_a", "model_b", "category"),
    }


def _pair_key(row: Row) -> tuple[str, str, str]:
    """The prompt and the two images, hashed where they are not named."""
    names = []
    for key in ("image_a", "image_b"):
        image: Any = resolve_image(row[key], None)
        if hasattr(image, "tobytes"):  # a picture, or an array of one
            image = image.tobytes()
        names.append(blake2b(image).hexdigest() if isinstance(image, bytes) else str(image))
    return as_name(row["prompt"]), names[0], names[1]


def _mmrb2(
    row: Row,
    prompt: Any,  # noqa: ANN401 (what a row holds)
    images: list[object],
    folder: Path | None,
    name: str | None,
    metadata: dict[str, object],
) -> RankedGroup:
    chosen = row["chosen"]
    ranks = _SIDES.get(chosen.upper()) if isinstance(chosen, str) else None
    if ranks is None:
        raise ValueError(f"chosen is {shown(chosen)}; expected A or B")
    held = row.get("human_annotations") or []
    marks = parsed(held) if isinstance(held, str) else held
    if isinstance(marks, ValueError):
        raise ValueError(f"human_annotations: {marks}")
    answers = [as_rank(n, "human_annotations") for n in as_list(marks, "human_annotations")]
    return RankedGroup(
        prompt=prompt,
        images=resolve_images(images, folder),
        ranks=ranks,
        id=name,
        annotations=tuple(FIRST if answer > _MIDDLE_OF_SIX else SECOND for answer in answers),
        metadata=metadata | ({"human_annotations": answers} if answers else {}),
    )


def _contents(value: object, name: str) -> list[tuple[str, object]]:
    """A list of (kind, value), as MMRB2 writes texts with pictures in between."""
    parts = [as_list(part, f"a part of {name}") for part in as_list(value, name)]
    if not all(len(part) == 2 for part in parts):
        raise ValueError(f"{name}: expected a list of pairs such as ['text', 'a cat']")
    return [(str(kind), content) for kind, content in parts]


def _only_image(images: Any) -> object:  # noqa: ANN401 (a sequence)
    if len(images) != 1:
        raise LeftOutError("an answer is not one picture")
    return images[0]


def _rapidata(
    row: Row, folder: Path | None, names: tuple[str, ...], *, counted: bool
) -> RankedGroup:
    if any(row[name] is None for name in names):
        raise LeftOutError("there are no votes")
    votes = [as_rank(row[name], name) for name in names]
    if not any(votes):
        raise LeftOutError("there are no votes")
    metadata = _kept(row, "model1", "model2") | _votes(votes, " and ".join(names), counted=counted)
    return RankedGroup(
        prompt=row["prompt"],
        images=resolve_images([row["image1"], row["image2"]], folder),
        ranks=_ranks(*votes),
        metadata=metadata,
    )


def _votes(votes: list[float], name: str, *, counted: bool = True) -> dict[str, object]:
    """Votes of two images, and their shares, as metadata."""
    if len(votes) != 2 or min(votes) < 0 or not sum(votes) > 0:
        raise ValueError(f"{name}: {shown(votes)}; expected two numbers of votes, not negative")
    share = [vote / sum(votes) for vote in votes]
    return {"votes": votes, "share": share} if counted else {"share": share}


def _ranks(first: float, second: float) -> tuple[int, int]:
    """Ranks of two images by their votes."""
    if first == second:
        return TIE
    return FIRST if first > second else SECOND


def _kept(row: Row, *keys: str) -> dict[str, object]:
    """What a row says beyond the preference, where it does."""
    return {key: plain(row[key]) for key in keys if row.get(key) is not None}
