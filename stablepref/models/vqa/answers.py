"""The probability of an answer, out of the log-probabilities of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from stablepref.models.vqa.forms import Reading

Tokens = tuple[int, ...]


@final
@dataclass(frozen=True)
class Answers:
    """Spellings of one answer as tokens, and how their probability is read.

    Attributes:
        spellings: Token ids of each spelling, none of them empty.
        reading: See `stablepref.models.vqa.forms.Reading`.
    """

    spellings: tuple[Tokens, ...]
    reading: Reading

    def probability(self, log_probs: Mapping[Tokens, Tensor]) -> Tensor:
        """The answer's probability, a scalar.

        Args:
            log_probs: For each of the `contexts` of some answers, this one among them, the
                log-probabilities `(len(context) + 1 or more, vocabulary)` of the token after the
                question and after each token of the context.
        """
        if self.reading.startswith("first"):
            first: Iterable[int] = (spelling[0] for spelling in self.spellings)
            tokens = list(first if self.reading == "first-each" else dict.fromkeys(first))
            return next(iter(log_probs.values()))[0][tokens].exp().sum()
        parts = []
        for spelling in dict.fromkeys(self.spellings):
            context = next(c for c in log_probs if c[: len(spelling) - 1] == spelling[:-1])
            rows = log_probs[context][: len(spelling)]
            each = rows[torch.arange(len(spelling)), list(spelling)]
            parts.append((each.mean() if self.reading == "mean" else each.sum()).exp())
        return torch.stack(parts).sum()


def contexts(answers: Iterable[Answers]) -> tuple[Tokens, ...]:
    """The fewest texts after a question that show the probability of every token of its answers.

    A model that reads a context gives the probabilities of the token after each part of it.
    """
    wanted: dict[Tokens, None] = {}
    for answer in answers:
        first = answer.reading.startswith("first")
        wanted |= dict.fromkeys(() if first else one[:-1] for one in answer.spellings)
    return tuple(
        one
        for one in wanted
        if not any(other != one and other[: len(one)] == one for other in wanted)
    )


def penalised(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Logits `(vocabulary,)` under the repetition penalty for tokens that were seen.

    Keskar et al., 2019 (arXiv:1909.05858), as transformers does: a positive logit is divided by the
    penalty, a negative one multiplied.
    """
    if penalty == 1:
        return logits
    tokens = torch.tensor(sorted(set(seen)), device=logits.device)
    own = logits[tokens]
    return logits.index_put((tokens,), torch.where(own < 0, own * penalty, own / penalty))
