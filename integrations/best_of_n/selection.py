"""What best of n chose, and what it looks like."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from PIL import Image

from stablepref.output.durable import replacing
from stablepref.output.notebook import PICTURES, data_frame, pictures_html
from stablepref.output.sheet import SIDE, contact_sheet, fitted
from stablepref.output.tables import Table
from stablepref.scoring.items import Item, Outcome
from stablepref.scoring.page import write_page

from .folder import Candidate

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd

SHOWN: Final = 400  # candidates on the page and on the sheet, the best ones


@final
@dataclass(frozen=True)
class Selection:
    """The best of a prompt's candidates.

    Attributes:
        prompt: The prompt.
        images: Those kept, best first.
        kept: Their indices among the candidates, best first.
        candidates: All candidates in order, with seeds and scores.
        margin: Score of the best minus score of the runner-up; None if there is no runner-up.
        spread: The mean over both of their largest minus smallest score over weak views
            (dist_intra, equation 6 of *Stable Preference*); None if there is no runner-up.
        tie: Whether the margin lies within that spread: the model does not prefer the best to the
            runner-up, and another crop of them may turn their order around.
        model: Name of the scorer.
        unit: Of its scores.
        pictures: Files of all candidates by index, where they were written (`out=`).
    """

    prompt: str
    images: Sequence[Image.Image]
    kept: Sequence[int]
    candidates: Sequence[Candidate]
    margin: float | None
    spread: float | None
    tie: bool
    model: str
    unit: str
    pictures: Mapping[int, Path]

    @property
    def image(self) -> Image.Image:
        """The best one."""
        return self.images[0]

    @property
    def seed(self) -> int:
        """Seed of the best one: `best_of_n(..., n=1, seed=selection.seed)` makes it again."""
        return self.candidates[self.kept[0]].seed

    @property
    def seeds(self) -> list[int]:
        """Of all candidates, in order."""
        return [candidate.seed for candidate in self.candidates]

    @property
    def scores(self) -> list[float]:
        """Of all candidates, in order; NaN for those that have none."""
        scores = (candidate.score for candidate in self.candidates)
        return [math.nan if score is None else score for score in scores]

    def picture(self, candidate: Candidate) -> Image.Image:
        """A candidate's picture, RGB: one of those kept, or out of its file.

        Raises:
            KeyError: It was neither kept nor written to disk.
            OSError: Its file cannot be read.
        """
        if candidate.index in self.kept:
            return self.images[self.kept.index(candidate.index)]
        with Image.open(self.pictures[candidate.index]) as image:
            return image.convert("RGB")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the selection to a folder, each file under a temporary name first.

        `best-01-seed-42.png` and so on, the images kept; `candidates.png`, a contact sheet, and
        `candidates.html`, a page, of the candidates in order with scores and seeds: of all where
        they were written to disk, at most 400, else of those kept; `selection.json`, all scores
        and seeds.

        Best images of an earlier selection in the folder are removed.

        Raises:
            OSError: The folder cannot be written, or a candidate's file is gone.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [
            f"best-{place:02d}-seed-{self.candidates[index].seed}.png"
            for place, index in enumerate(self.kept, start=1)
        ]
        for image, name in zip(self.images, names, strict=True):
            _write_picture(image, folder / name)
        for older in set(folder.glob("best-*-seed-*.png")) - {folder / name for name in names}:
            older.unlink()  # of the same folder with fewer candidates
        shown = self._shown()
        sheet = contact_sheet(
            [fitted(self.picture(candidate), SIDE) for candidate in shown],
            [
                f"{place} · {candidate.score:.3f} · seed {candidate.seed}"
                f"{self._mark(place, candidate)}"
                for place, candidate in enumerate(shown, start=1)
            ],
            title=f"{self.prompt} ({self.model})",
            tied=self._tied,
        )
        _write_picture(sheet, folder / "candidates.png")
        write_page(
            folder / "candidates.html",
            {self.prompt: [self._outcome(candidate) for candidate in shown]},
            [self._outcome(candidate) for candidate in self.candidates if candidate.fault],
            model=self.model,
            unit=self.unit,
            tied=self._tied,
            kept=self.kept,
        )
        with replacing(folder / "selection.json") as staging:
            staging.write_text(json.dumps(self.row(), indent=1) + "\n")

    def to_pandas(self) -> pd.DataFrame:
        """One row for each candidate, in order: index, seed, score, fault, pruned and kept.

        Raises:
            ImportError: pandas is not installed; it is in the extra ``notebook``.
        """
        names = [field.name for field in fields(Candidate)]
        rows = [{**vars(one), "kept": one.index in self.kept} for one in self.candidates]
        return data_frame(rows, [*names, "kept"])

    def _repr_html_(self) -> str:
        kept = zip(self.images, (self.candidates[index] for index in self.kept), strict=True)
        captions = (
            (image, f"{place}: {one.score:.4f}, seed {one.seed}")
            for place, (image, one) in enumerate(kept, start=1)
        )
        row = [len(self.candidates), self.margin, self.spread, self.tie]
        table = Table(columns=["candidates", "margin", "spread", "tie"], rows=[row])
        title = f"{self.prompt} ({self.model}: {self.unit})"
        return pictures_html(title, islice(captions, PICTURES)) + table.html()

    def row(self) -> dict[str, object]:
        """All but the pictures, plain JSON values."""
        return {
            "prompt": self.prompt,
            "model": self.model,
            "unit": self.unit,
            "kept": [vars(self.candidates[index]) for index in self.kept],
            "margin": self.margin,
            "spread": self.spread,
            "tie": self.tie,
            "candidates": [vars(candidate) for candidate in self.candidates],
        }

    @property
    def _tied(self) -> int:
        """How many of the first are shown as tied; the margin is known of the first two."""
        return 2 if self.tie else 0

    def _mark(self, place: int, candidate: Candidate) -> str:
        tie = " · tie" if place <= self._tied else ""
        return tie + (" · kept" if candidate.index in self.kept and len(self.kept) > 1 else "")

    def _shown(self) -> list[Candidate]:
        """Candidates with a score and a picture at hand, best first."""
        there = set(self.kept) | set(self.pictures)
        scored = [c for c in self.candidates if c.score is not None and c.index in there]
        return in_order(scored)[:SHOWN]

    def _outcome(self, candidate: Candidate) -> Outcome:
        picture: object = None
        if not candidate.fault:  # a file is read when its card is drawn
            picture = self.pictures.get(candidate.index) or self.picture(candidate)
        item = Item(f"seed {candidate.seed}", picture, self.prompt)
        return Outcome(candidate.index, item, candidate.score, None, candidate.fault)


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with a score, best first; equal scores in the order of their indices."""
    scored = [candidate for candidate in candidates if candidate.score is not None]
    return sorted(scored, key=lambda candidate: (-(candidate.score or 0.0), candidate.index))


def _write_picture(image: Image.Image, path: Path) -> None:
    with replacing(path) as staging:
        image.save(staging, "PNG")
