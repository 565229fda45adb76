"""The paper's claims, each with what the laboratory found: held, the opposite, or undecided."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from stablepref.augment.perturbations import UNSEEN
from stablepref.output.tables import markdown_lines

from ..people.settings import SETTINGS
from ..world.perturbations import CROPS
from .plan import START
from .statistics import Paired, paired
from .tables import (
    difference_text,
    disturbed,
    held_out_means,
    lost,
    peak_and_end,
    title_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .methods import Model
    from .plan import Row

    RowsOf = Mapping[tuple[str, Model, str], Sequence[Row]]

# The table, the method that is claimed to be better, and the one it is compared with.
_BETTER = (
    ("table2", "ce-ai", "ce"),
    ("table2", "sp-no-ai", "ce"),
    ("table2", "sp", "ce"),
    ("table2", "sp", "sp-no-ai"),
    ("table3", "sp", "sp-uniform"),
    ("table3", "sp", "sp-inverse"),
    ("table5", "sp", "ce"),
)
_NAMES = {
    "table1": "Table 1",
    "table2": "Table 2",
    "table3": "Table 3",
    "table5": "Table 5",
    "overfitting": "Section 1",
}
_STEADIER = (("ce-ai", "ce"), ("sp", "ce"), ("sp", "ce-augmented"), ("sp", START))
_TRUER = (("ce-ai", "ce-augmented"), ("sp", "ce-augmented"))
_LONG = ("sp", "sp-at-ce-rate")
_ENDS = ((False, "each at its stop"), (True, "after the last step"))


class Claim(NamedTuple):
    """A claim on one model and one setting.

    Attributes:
        table: Where the paper makes it.
        says: In words.
        model: Size.
        setting: Trained on, and tested on if that is another.
        found: The claimed advantage, positive if the claim holds; None if a training diverged.
    """

    table: str
    says: str
    model: str
    setting: str
    found: Paired | None

    @property
    def verdict(self) -> str:
        """What was found of it."""
        return "diverged" if self.found is None else self.found.verdict


def claims(rows: RowsOf) -> list[Claim]:
    """Every claim that the given tables bear on."""
    return [
        Claim(table, says, model, _where(table, setting), found)
        for (table, model, setting), some in rows.items()
        for says, found in _of_table(table, setting, {row.method: row for row in some})
    ]


def claims_table(found: Sequence[Claim]) -> str:
    """The claims in Markdown."""
    lines = [
        (
            _NAMES[claim.table],
            claim.says,
            f"{claim.model}, {claim.setting}",
            difference_text(claim.found),
            claim.verdict,
        )
        for claim in found
    ]
    return "\n".join(
        markdown_lines(("of", "claim", "model, data", "advantage, points", "here"), lines)
    )


def claims_counts(found: Sequence[Claim]) -> str:
    """In how many places each claim held, was not decided, or turned out the other way."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for claim in found:
        counts[claim.table, claim.says][claim.verdict] += 1
    verdicts = ["held", "not decided", "no difference", "the opposite"]
    verdicts += ["diverged"] * any(claim.verdict == "diverged" for claim in found)
    lines = [
        (_NAMES[table], says, *(str(count[verdict] or "") for verdict in verdicts))
        for (table, says), count in counts.items()
    ]
    return "\n".join(markdown_lines(("of", "claim", *verdicts), lines))


def other_setting(setting: str) -> str:
    """The setting that a model was not trained on."""
    (other,) = (name for name in SETTINGS if name != setting)
    return other


def _where(table: str, setting: str) -> str:
    return f"{setting}, tested on {other_setting(setting)}" if table == "table5" else setting


def _of_table(
    table: str, setting: str, rows: Mapping[str, Row]
) -> Iterator[tuple[str, Paired | None]]:
    where = other_setting(setting) if table == "table5" else setting
    for name, better, worse in _BETTER:
        if name == table:
            says = f"{title_of(better)} agrees more with the truth than {title_of(worse)}"
            for end, when in _ENDS:
                ours, theirs = (
                    held_out_means(rows[each], where, "oracle", end=end) for each in (better, worse)
                )
                yield f"{says}, {when}", paired(ours, theirs)
    if table == "table1":
        for end, when in _ENDS:
            for kind, names in (("crops", CROPS), ("unseen perturbations", UNSEEN)):
                for steady, other in _STEADIER:
                    says = f"{title_of(steady)} flips fewer pairs than {title_of(other)}"
                    # What is claimed is that the other flips more.
                    fewer, more = (
                        disturbed(rows[each], names, "flips", end=end) for each in (steady, other)
                    )
                    # The model before training is the same for all seeds.
                    more = more * len(fewer) if other == START else more
                    yield f"{says} under {kind}, {when}", paired(more, fewer)
                for truer, other in _TRUER:
                    says = f"{title_of(truer)} agrees more with the truth than {title_of(other)}"
                    ours, theirs = (
                        disturbed(rows[each], names, "oracle", end=end) for each in (truer, other)
                    )
                    yield f"{says} under {kind}, {when}", paired(ours, theirs)
    if table == "overfitting":
        _, their_peak, their_end = peak_and_end(rows["ce"], setting)
        for name in _LONG:
            _, our_peak, our_end = peak_and_end(rows[name], setting)
            says = f"{title_of(name)} loses less from its best step to the last"
            losses = (lost(their_peak, their_end), lost(our_peak, our_end))
            yield f"{says} than {title_of('ce')}", paired(*losses)
            says = f"{title_of(name)} agrees more with the truth than {title_of('ce')}"
            yield f"{says}, after the last step", paired(our_end, their_end)
