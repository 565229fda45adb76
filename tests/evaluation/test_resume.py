"""An evaluation that was interrupted goes on, and takes no scores of other work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.shades import HAND, ShadeScorer

from stablepref.evaluation.evaluate import evaluate
from stablepref.output.partial import ResumeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stablepref.data.groups import RankedGroup


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    whole = evaluate(ShadeScorer(), HAND * 4, perturbations=("hflip",))
    scorer = ShadeScorer()

    def stops() -> Iterator[RankedGroup]:
        yield from HAND * 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(scorer, stops(), perturbations=("hflip",), out=out, batch_size=2)
    kept = (tmp_path / "out.json.partial").read_text().count("\n") - 1
    assert 1 <= kept < 12
    scorer.encoded = 0
    found = evaluate(scorer, HAND * 4, perturbations=("hflip",), out=out)
    assert found.as_dict(scores=True) == whole.as_dict(scores=True)
    assert not (tmp_path / "out.json.partial").exists()
    rest = {id(image) for group in HAND[kept:] for image in group.images}
    assert scorer.encoded == 2 * len(rest)  # nothing that was scored is encoded again


def test_partial_scores_of_other_work_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    partial = tmp_path / "out.json.partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(ShadeScorer(), HAND, perturbations=("hflip",), out=out)
    before = partial.read_bytes()
    trained = ShadeScorer()
    torch.nn.init.constant_(trained.weight, 254.0)
    for scorer, groups, names, says in (
        (trained, HAND, ("hflip",), "was made with"),
        (ShadeScorer(), HAND, ("hflip", "jpeg-50"), "was made with"),
        (ShadeScorer(), HAND[::-1], ("hflip",), "now the group"),
        (ShadeScorer(), HAND[:2], ("hflip",), "more results than the 2"),
    ):
        with pytest.raises(ResumeError, match=says):
            evaluate(scorer, groups, perturbations=names, out=out)
        assert partial.read_bytes() == before
    # Another tie rule needs no other scores.
    scorer = ShadeScorer()
    evaluate(scorer, HAND, perturbations=("hflip",), tie_rule="hpsv2", out=out)
    assert scorer.encoded == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scores": [[0.5]]}, r"scores have the shape \(1, 1\)"),
        ({"scores": [["0.5"]]}, "scores or errors cannot be read"),
        ({"scores": 3}, "scores or errors cannot be read"),
        ({"errors": {"-1": "gone"}}, "errors name image -1 of"),
        ({"errors": ["gone"]}, "scores or errors cannot be read"),
    ],
)
def test_damaged_rows_are_named(change: dict[str, object], says: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    partial = tmp_path / "out.json.partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(ShadeScorer(), HAND, perturbations=("hflip",), out=out)
    header, first, *rest = partial.read_text().splitlines()
    damaged = json.dumps(json.loads(first) | change)
    partial.write_text("\n".join([header, damaged, *rest]) + "\n")
    with pytest.raises(ResumeError, match=rf"out\.json\.partial is damaged: group .*: .*{says}"):
        evaluate(ShadeScorer(), HAND, perturbations=("hflip",), out=out)


def _stop(*_: object) -> Path:
    raise KeyboardInterrupt
