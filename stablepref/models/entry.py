"""`Entry`: what the table of reward models knows of each, and how a model is built from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.weights.remote import RemoteFile

MAX_LOGIT_SCALE: Final = 100
"""The largest factor between cosine and score that a CLIP model may train to, as in CLIP itself."""

IMAGEREWARD_TEST: Final = "ImageReward test"
HPDV2_TEST: Final = "HPD v2 test"
LOGIT: Final = "logit_scale x cosine"

Builder = Callable[["Entry", "Sequence[Path]"], Any]
"""Makes the scorer of an entry from its files: on the CPU, in their dtype, in evaluation mode."""


@final
@dataclass(frozen=True)
class Entry:
    """One model of the zoo. What has a default need not be known of a model from outside.

    Attributes:
        name: What `stablepref.load` calls it.
        builder: What makes the scorer of this entry and the local paths of `files`, in their
            order: the function itself, or where it is, as "package.module:function", which is
            imported when the model is loaded.
        kind: What saved configurations call the scorer's class: its `Scorer.kind`.
        backbone: Short name of the architecture, as people know it.
        sizes: The architecture in numbers; the files must fit them.
        protocol: Preprocessing protocol.
        unit: Unit of its scores.
        preference_scale: As in `stablepref.Scorer`.
        loss_form: Offset and factor of the loss, offset - factor x score, by which AlignProp and
            ReNO optimise it (AlignProp's main.py, ReNO's rewards/*.py). HPS is a cosine there and
            100 x cosine here.
        licence: Of the weights, as published.
        files: What is loaded, the weights first.
        relation: How the score relates to the number that the model's own package prints.
        published: Pairwise agreement with people in per cent, by test set, as published
            (HPS v2, ImageReward and Stable Preference papers).
        size_mb: Download in megabytes (10^6 bytes), about.
        page: Where the model is described.
        aliases: Other names by which people know it; see `stablepref.models.registry.model_name`.
        needs_prompt: Whether its scores depend on the prompt.
        laboratory: Whether it knows only the drawn shapes of the laboratory, and nothing of taste.
    """

    name: str
    builder: str | Builder
    kind: str = ""
    backbone: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)
    protocol: str = ""
    unit: str = ""
    preference_scale: float | None = None
    loss_form: tuple[float, float] = (0.0, 1.0)
    licence: str = ""
    files: tuple[RemoteFile, ...] = ()
    relation: str = ""
    size_mb: int = 0
    page: str = ""
    published: dict[str, float] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    needs_prompt: bool = True
    laboratory: bool = False

    def build(self, files: Sequence[Path]) -> Any:  # noqa: ANN401 - a `Scorer`, which needs torch
        """The scorer, on the CPU, in the dtype of its files, in evaluation mode.

        Args:
            files: Local paths in the order of `self.files`.

        Raises:
            WeightsError: A file is truncated, of a foreign format, or does not fit the
                architecture; missing and unexpected keys are named.
            ImportError: The builder cannot be imported.
        """
        return self._builder()(self, files)

    def facts(self) -> dict[str, Any]:
        """All fields as plain JSON values; the builder as the place where it is."""
        builder = self.builder
        if not isinstance(builder, str):
            name = getattr(builder, "__qualname__", type(builder).__qualname__)
            builder = f"{builder.__module__}:{name}"
        fields = {f: getattr(self, f) for f in self.__dataclass_fields__ if f != "files"}
        return fields | {"builder": builder, "files": [asdict(file) for file in self.files]}

    def _builder(self) -> Builder:
        if not isinstance(self.builder, str):
            return self.builder
        module, _, name = self.builder.partition(":")
        try:
            builder: Builder = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            msg = (
                f"the scorer {self.name!r} has the builder {self.builder!r}, which cannot be "
                f'imported ({error}); expected "package.module:function"'
            )
            raise ImportError(msg) from error
        return builder
