"""The models in the rows of the paper's tables: published weights, or how they are trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from stablepref.models.catalog import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


TRAINING_DATA: Final = "hf:THUDM/ImageRewardDB --split train"


@final
@dataclass(frozen=True)
class Trained:
    """A model of the laboratory's ablations.

    Attributes:
        size: "small" or "large".
        method: How it is trained, a name of `stablepref.benchmarks.shapes.ablation.methods`.
        setting: Kind of data that it is trained on.
    """

    size: str
    method: str
    setting: str = "imagereward"


@final
@dataclass(frozen=True)
class Method:
    """The model that scores in a row.

    Attributes:
        key: Its name in `--model KEY=PATH`.
        base: Name in the zoo of the model with its architecture.
        training: Arguments of `stablepref train` that make it; "" for the zoo's own weights, None
            where no recipe makes it.
        standin: What stands in for it in the laboratory; None for nothing.
    """

    key: str
    base: str
    training: str | None = ""
    standin: Trained | None = None

    @property
    def published(self) -> bool:
        """Whether its weights are published: those of the zoo."""
        return self.training == ""

    def where(self) -> str:
        """How to get its weights, for messages."""
        given = f"--model {self.key}=PATH"
        if self.published:
            entry = BY_NAME[self.base]
            if not any(file.repo or file.url for file in entry.files):
                return f"get {entry.files[0].filename} from {entry.page} and give {given}"
            return f"--download fetches {entry.size_mb:,} MB, or {given}"
        if self.training is None:
            return f"no recipe trains it: {given} takes weights that were trained elsewhere"
        return f"{self.command()}, then --model {self.key}=RUN/best"

    def command(self) -> str:
        """The command that trains it, into RUN/best."""
        return f"`stablepref train {self.training} --data {TRAINING_DATA} --out RUN`"


_NO_VIEWS: Final = "--anti-interference false --views 0"
_VIEWS: Final = "--anti-interference true --views 3"
_START: Final = "start"  # `shapes.ablation.plan.START`, whose module imports numpy and more
_METHODS: Final = (
    Method("clip-l", "clip-vit-l-14", standin=Trained("small", _START)),
    Method("clip-h", "clip-vit-h-14", standin=Trained("large", _START)),
    Method("aesthetic", "laion-aesthetic-v2"),
    Method("hps-v1", "hps-v1"),
    Method("pickscore", "pickscore-v1"),
    Method("imagereward", "imagereward-v1"),
    # Trained by cross-entropy on the data set that is named after it.
    Method("hps-v2", "hps-v2", standin=Trained("large", "ce", "hpdv2")),
    Method("ce-clip-l", "clip-vit-l-14", "--recipe ce-clip-l", Trained("small", "ce")),
    Method("ce-clip-h", "clip-vit-h-14", "--recipe ce-clip-h", Trained("large", "ce")),
    Method("ce-blip", "blip-large", None),
    Method(
        "ce-ai-clip-l",
        "clip-vit-l-14",
        f"--recipe ce-clip-l {_VIEWS}",
        Trained("small", "ce-ai"),
    ),
    Method(
        "ce-ai-clip-h",
        "clip-vit-h-14",
        f"--recipe ce-clip-h {_VIEWS}",
        Trained("large", "ce-ai"),
    ),
    Method(
        "sp-no-ai-clip-l",
        "clip-vit-l-14",
        f"--recipe sp-clip-l {_NO_VIEWS}",
        Trained("small", "sp-no-ai"),
    ),
    Method(
        "sp-no-ai-clip-h",
        "clip-vit-h-14",
        f"--recipe sp-clip-h {_NO_VIEWS}",
        Trained("large", "sp-no-ai"),
    ),
    Method("sp-clip-l", "clip-vit-l-14", "--recipe sp-clip-l", Trained("small", "sp")),
    Method("sp-clip-h", "clip-vit-h-14", "--recipe sp-clip-h", Trained("large", "sp")),
    Method("sp-clip-h-hps", "hps-v2", "--recipe sp-clip-h-hps"),
    Method(
        "sp-clip-h-inverse",
        "clip-vit-h-14",
        "--recipe sp-clip-h --margin-weighting inverse",
        Trained("large", "sp-inverse"),
    ),
    Method(
        "sp-clip-h-uniform",
        "clip-vit-h-14",
        "--recipe sp-clip-h --margin-weighting uniform",
        Trained("large", "sp-uniform"),
    ),
)
METHODS: Final = {method.key: method for method in _METHODS}
"""By key."""


def parse_models(given: Sequence[str], names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Paths of `--model ROW=PATH` by the rows' keys.

    Args:
        given: ROW=PATH, as typed. ROW is a key or one of a row's names, in upper or lower case and
            with any punctuation; "SP" stands for "Stable Preference".
        names: For each key of the table all names by which its row may be given.

    Raises:
        ValueError: A row is unknown (the message lists the rows) or given twice, or a PATH is
            missing.
    """
    keys = {plain_name(name): key for key, own in names.items() for name in (*own, key)}
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            msg = f"--model {text!r}: expected ROW=PATH"
            raise ValueError(msg)
        key = keys.get(plain_name(name))
        if key is None:
            msg = f"--model {text!r}: no row is called {name!r}; the rows are: {', '.join(names)}"
            raise ValueError(msg)
        if key in found:
            msg = f"--model {text!r}: the row {key} is given twice"
            raise ValueError(msg)
        found[key] = path
    return found


def plain_name(name: str) -> str:
    """A name without case, punctuation and other things that people write differently."""
    short = name.casefold().replace("stable preference", "sp").replace("from", "")
    return re.sub(r"[^\w+]", "", short.replace("†", "hpsv2"))
