"""Who is asked what next, and what becomes of the answers."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from stablepref.data.labels import Answer, Key, Label

    from .journal import Journal
    from .questions import Question

GAP: Final = 10
"""Answers that lie at least between a question and its repeat."""
LEASE_SECONDS: Final = 600.0
"""For how long a question that was shown to one annotator is kept from others, where each is for so
many annotators only."""


class StaleAnswerError(ValueError):
    """An answer to something else than what the annotator is asked now, as from a second window."""


@final
@dataclass(frozen=True)
class Shown:
    """A question as it stands on an annotator's screen.

    Attributes:
        question: What is asked.
        order: The places of its pictures, in the order in which they stand there.
        times: How often the annotator answered it before.
    """

    question: Question
    order: tuple[int, ...]
    times: int

    @property
    def token(self) -> str:
        """What an answer to it has to name."""
        return f"{self.question.id}-{self.times}"


@final
@dataclass(frozen=True)
class Progress:
    """How far an annotator is.

    Attributes:
        done: Answers that count, repeats among them.
        total: With those to come.
    """

    done: int
    total: int


@final
class Session:
    """Questions, answers, and who is asked what next. Safe to call from several threads.

    An annotator sees the questions in their order, each once, with the pictures of each in a random
    order of the annotator's own. Some are asked a second time, at random places and at least ten
    answers later, with the pictures in the reverse order.

    Args:
        questions: In the order in which they are asked.
        journal: Where answers go.
        repeats: Share of questions that are asked a second time, from 0 to 1.
        annotators: How many annotators answer each question; None for all.
        seed: Of what is random.
        clock: Seconds; for leases.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        journal: Journal,
        *,
        repeats: float = 0.1,
        annotators: int | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not questions:
            msg = "there is nothing to ask: no prompt has two pictures"
            raise ValueError(msg)
        if not 0 <= repeats <= 1:
            msg = f"repeats is {repeats}; expected a share from 0 to 1"
            raise ValueError(msg)
        self.journal = journal
        self.questions = {one.id: one for one in questions}
        self.repeats, self.annotators, self.seed = repeats, annotators, seed
        self._keys: dict[str, Key] = {
            one.id: (one.prompt, tuple(sorted(journal.names(one)))) for one in questions
        }
        self._by_key = {key: self.questions[name] for name, key in self._keys.items()}
        self._gap = min(GAP, len(self.questions) // 2)
        self._leases: dict[str, dict[str, float]] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def next(self, annotator: str) -> tuple[Shown | None, Progress]:
        """What an annotator is asked now, the same until it is answered, and how far that is."""
        with self._lock:
            return self._next(annotator)

    def answer(
        self,
        annotator: str,
        token: str,
        answer: Answer,
        ranks: Sequence[int],
        seconds: float | None = None,
    ) -> None:
        """Put an answer on disk.

        Args:
            annotator: Who gave it.
            token: Of what was shown.
            answer: What was answered.
            ranks: Of the pictures in the order in which they stand on the screen, 1 the best; with
                "skip" none.
            seconds: How long it took.

        Raises:
            StaleAnswerError: The annotator is asked something else now.
            ValueError: The ranks do not fit.
            OSError: It cannot be written.
        """
        with self._lock:
            current, _ = self._next(annotator)
            if current is None or current.token != token:
                msg = "this was answered already, perhaps in another window"
                raise StaleAnswerError(msg)
            _check_ranks(answer, ranks, len(current.order))
            own = [0] * len(ranks)
            for rank, place in zip(ranks, current.order if ranks else (), strict=True):
                own[place] = rank
            self.journal.answer(
                annotator, current.question, answer, own, shown=current.order, seconds=seconds
            )
            self._leases.get(current.question.id, {}).pop(annotator, None)

    def undo(self, annotator: str) -> bool:
        """Take an annotator's last answer back, so that it is asked again.

        Returns:
            Whether there was one.

        Raises:
            OSError: That cannot be written.
        """
        with self._lock:
            own = [one for one in self.journal.of(annotator) if one.key in self._by_key]
            if own:
                self.journal.undo(own[-1])
            return bool(own)

    @contextmanager
    def reading(self) -> Iterator[Collection[Label]]:
        """The answers that count, which nobody changes until the block ends."""
        with self._lock:
            yield self.journal.labels.values()

    def _next(self, annotator: str) -> tuple[Shown | None, Progress]:
        own = [label for label in self.journal.of(annotator) if label.key in self._by_key]
        times: dict[str, int] = {}
        for label in own:
            name = self._by_key[label.key].id
            times[name] = times.get(name, 0) + 1
        full = self._full(annotator)
        open_ = [name for name in self.questions if name not in times and name not in full]
        repeated = sum(count > 1 for count in times.values())
        owed = round(self.repeats * (len(times) + len(open_))) - repeated
        progress = Progress(len(own), len(own) + len(open_) + max(0, owed))
        chosen = self._again(annotator, times) or self._chosen(annotator, own, times, open_, owed)
        if chosen is None:
            return None, progress
        if self.annotators is not None and chosen not in times:
            self._leases.setdefault(chosen, {})[annotator] = self._clock()
        return self._shown(annotator, chosen, times.get(chosen, 0)), progress

    def _again(self, annotator: str, times: dict[str, int]) -> str | None:
        """A question whose answer was taken back last."""
        for label in reversed(self.journal.undone.get(annotator, [])):
            question = self._by_key.get(label.key)
            if question is not None and times.get(question.id, 0) < 2:
                return question.id
        return None

    def _chosen(
        self,
        annotator: str,
        own: Sequence[Label],
        times: dict[str, int],
        open_: Sequence[str],
        owed: int,
    ) -> str | None:
        """A repeat where it is time for one, else the next question, else a repeat that is owed."""
        if len(own) in self._places(annotator) or (not open_ and owed > 0):
            gap = self._gap if open_ else 0
            earlier = own[: max(0, len(own) - gap)]
            once = [
                self._by_key[label.key].id
                for label in earlier
                if label.answer != "skip" and times[self._by_key[label.key].id] == 1
            ]
            if once:
                return random.Random(f"{self.seed} repeat {annotator} {len(own)}").choice(once)
        return open_[0] if open_ else None

    def _places(self, annotator: str) -> set[int]:
        """After how many answers of an annotator a repeat comes."""
        count = round(self.repeats * len(self.questions))
        total = len(self.questions) + count
        places = range(min(self._gap + 1, total), total)
        rng = random.Random(f"{self.seed} places {annotator}")
        return set(rng.sample(places, min(count, len(places))))

    def _full(self, annotator: str) -> set[str]:
        """The questions that others answer already, as many as are wanted."""
        if self.annotators is None:
            return set()
        others: dict[str, set[str]] = {name: set() for name in self.questions}
        for label in self.journal.labels.values():
            if label.key in self._by_key and label.answer != "skip":
                others[self._by_key[label.key].id].add(label.annotator)
        now = self._clock()
        for name, leases in self._leases.items():
            others[name] |= {who for who, since in leases.items() if now - since < LEASE_SECONDS}
        return {
            name for name, found in others.items() if len(found - {annotator}) >= self.annotators
        }

    def _shown(self, annotator: str, name: str, times: int) -> Shown:
        question = self.questions[name]
        order = list(range(len(question.images)))
        random.Random(f"{self.seed} order {annotator} {name}").shuffle(order)
        return Shown(question, tuple(order[::-1] if times % 2 else order), times)


def _check_ranks(answer: Answer, ranks: Sequence[int], count: int) -> None:
    """Refuse ranks that do not fit an answer.

    Raises:
        ValueError: They do not.
    """
    expected = 0 if answer == "skip" else count
    if len(ranks) != expected or not all(1 <= rank <= count for rank in ranks):
        msg = f"expected {expected} ranks from 1 to {count} with {answer!r}, got {list(ranks)}"
        raise ValueError(msg)
    if (answer == "ranked") != (len(set(ranks)) > 1) and answer != "skip":
        msg = f"the ranks {list(ranks)} are no answer {answer!r}"
        raise ValueError(msg)
