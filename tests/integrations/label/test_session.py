"""Who is asked what next: order, sides, repeats, undo, shared work, and what is on disk."""

import json
import os
from pathlib import Path

import pytest
from helpers.labelling import draw, session_of

from stablepref.data.read import read_groups
from stablepref.integrations.label.journal import Journal
from stablepref.integrations.label.session import GAP, Session, Shown, StaleAnswerError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw(tmp_path / "pictures")


def asked(session: Session, annotator: str) -> Shown:
    shown, _ = session.next(annotator)
    assert shown is not None
    return shown


def prefer_lighter(session: Session, annotator: str) -> Shown:
    """Answer what is asked: the picture that stands later in its prompt's list is lighter."""
    shown = asked(session, annotator)
    places = sorted(range(len(shown.order)), key=lambda place: -shown.order[place])
    ranks = [places.index(place) + 1 for place in range(len(places))]
    session.answer(annotator, shown.token, "ranked", ranks, 1.0)
    return shown


def test_every_pair_is_asked_once_and_sides_are_random(folder: Path, tmp_path: Path) -> None:
    session = session_of(folder, tmp_path / "out.jsonl")
    seen = [prefer_lighter(session, "ann") for _ in range(9)]
    assert len({one.question.id for one in seen}) == 9  # 3 prompts, 3 pairs each
    assert session.next("ann")[0] is None
    assert {one.order for one in seen} == {(0, 1), (1, 0)}
    assert len({one.question.prompt for one in seen[:4]}) > 1
    # Whatever stood where, the lighter picture won.
    for group in read_groups(tmp_path / "out.jsonl"):
        assert group.pairs() == [(1, 0)]
        assert group.images == tuple(sorted(group.images, key=lambda p: (len(str(p)), str(p))))


def test_a_killed_session_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = session_of(folder, out)
    for _ in range(4):
        prefer_lighter(first, "ann")
    current = asked(first, "ann")
    with out.open("ab") as file:  # killed in the middle of a line
        file.write(b'{"label": "half", "annot')
    again = session_of(folder, out)
    assert asked(again, "ann") == current
    assert again.next("ann")[1] == first.next("ann")[1]
    for _ in range(5):
        prefer_lighter(again, "ann")
    assert len(list(read_groups(out))) == 9


def test_a_failed_write_does_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(folder, out)
    prefer_lighter(session, "ann")
    before, current = out.read_bytes(), asked(session, "ann")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            prefer_lighter(session, "ann")
    assert out.read_bytes() == before
    assert asked(session, "ann") == current


def test_undo_asks_the_same_again_with_the_same_sides(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(folder, out)
    seen = [prefer_lighter(session, "ann") for _ in range(3)]
    assert session.undo("ann")
    assert session.undo("ann")
    assert asked(session, "ann") == seen[1]
    assert asked(session_of(folder, out), "ann") == seen[1]  # also after a restart
    session.answer("ann", seen[1].token, "tie", [1, 1])
    assert asked(session, "ann") == seen[2]
    assert not session.undo("bob")
    groups = list(read_groups(out))
    assert [len(group.ties()) for group in groups] == [0, 1]


def test_repeats_come_later_and_reversed(folder: Path, tmp_path: Path) -> None:
    many = draw(tmp_path / "many", images=6)
    session = session_of(many, tmp_path / "out.jsonl", repeats=0.2)
    total = session.next("ann")[1].total
    assert total == 45 + 9
    seen: list[Shown] = []
    while session.next("ann")[0] is not None:
        seen.append(prefer_lighter(session, "ann"))
    assert len(seen) == total
    first = {one.question.id: place for place, one in enumerate(seen) if one.times == 0}
    again = [(place, one) for place, one in enumerate(seen) if one.times == 1]
    assert len(again) == 9
    for place, one in again:
        before = first[one.question.id]
        assert place - before > GAP or place >= 45
        assert one.order == seen[before].order[::-1]
    assert any(place < 40 for place, _ in again)  # not only at the end
    others = session_of(many, tmp_path / "other.jsonl", repeats=0.2)._places("bob")
    assert others != session._places("ann")


def test_each_question_for_one_annotator(folder: Path, tmp_path: Path) -> None:
    session = session_of(folder, tmp_path / "out.jsonl", annotators=1)
    assert asked(session, "ann").question != asked(session, "bob").question
    seen = [prefer_lighter(session, name).question.id for name in ("ann", "bob") * 4]
    seen.append(prefer_lighter(session, "ann").question.id)
    assert len(set(seen)) == 9
    assert session.next("ann")[0] is session.next("bob")[0] is None


def test_a_question_that_was_left_open_is_asked_of_others_later(
    folder: Path, tmp_path: Path
) -> None:
    now = [0.0]
    made = session_of(folder, tmp_path / "out.jsonl")
    session = Session(
        list(made.questions.values()), made.journal, repeats=0, annotators=1, clock=lambda: now[0]
    )
    held = asked(session, "ann").question
    for _ in range(8):
        assert prefer_lighter(session, "bob").question != held
    assert session.next("bob")[0] is None
    now[0] = 601
    assert asked(session, "bob").question == held


def test_stale_and_wrong_answers_are_refused(folder: Path, tmp_path: Path) -> None:
    session = session_of(folder, tmp_path / "out.jsonl")
    shown = prefer_lighter(session, "ann")
    with pytest.raises(StaleAnswerError):
        session.answer("ann", shown.token, "tie", [1, 1])
    token = asked(session, "ann").token
    for answer, ranks in (
        ("ranked", [1, 1]), ("tie", [1, 2]), ("bad", [2, 1]), ("skip", [1, 2]), ("ranked", [1]),
        ("ranked", [0, 1]), ("ranked", [1, 3]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"ranks|no answer"):
            session.answer("ann", token, answer, ranks)  # type: ignore[arg-type] # a Literal
    assert len(session.journal.labels) == 1


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({"prompt": "p", "images": ["a", "b"], "ranks": [1, 2]}) + "\n")
    with pytest.raises(ValueError, match="missing"):
        Journal(out)


def test_answers_to_other_pictures_stay(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    prefer_lighter(session_of(folder, out), "ann")
    session = session_of(folder, out, show="groups")
    assert session.next("ann")[1].done == 0
    assert not session.undo("ann")
    prefer_lighter(session, "ann")
    assert {len(group.images) for group in read_groups(out)} == {2, 3}
