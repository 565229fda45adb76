"""Pictures of very different sizes: the same scores, without memory for the largest many times."""

import pytest
import torch
from helpers.tiny import tiny_clip
from torch import Tensor

from stablepref.training import step
from stablepref.training.step import ViewScores, padded_together

SIZES = [(40, 64), (64, 40), (300, 280), (50, 50), (90, 64), (64, 64)]


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES
    ]


def views() -> tuple[Tensor, Tensor]:
    boxes = torch.tensor([[[0.0, 0, 1, 1], [0.05, 0.02, 0.97, 0.9]]]).expand(len(SIZES), 2, 4)
    return boxes, torch.tensor([[False, True]]).expand(len(SIZES), 2)


def test_scores_are_those_of_each_picture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.padded_together, "__defaults__", (3 * 90 * 64,))
    scorer = tiny_clip()
    module, prompts = ViewScores(scorer), [f"picture {i // 2}" for i in range(len(SIZES))]
    boxes, flips = views()
    shapes = []
    scorer.preprocess.register_forward_pre_hook(
        lambda _, given: shapes.append([tuple(p.shape[1:]) for p in given[0]])
    )
    with torch.no_grad():
        found = module(pictures(), prompts, boxes, flips)
        together, shapes[:] = list(shapes), []
        for row, picture, prompt, box, flip in zip(
            found, pictures(), prompts, boxes, flips, strict=True
        ):
            inputs = scorer.preprocess([picture / 255], box[None], flip[None])[0]
            alone = scorer.match(
                scorer.encode_inputs(inputs), scorer.encode_prompts([prompt]).expand(2, -1)
            )
            torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)
    assert together == [SIZES[:2], SIZES[2:3], SIZES[3:6]]


def test_a_huge_picture_is_padded_to_alone() -> None:
    """One of 2500² among 63 of 512²: padded together they were 64 x 2500² = 400 M pixels."""
    pixels = [torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, 512, 512)] * 64
    pixels[20] = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, 2500, 2500)
    runs = padded_together(pixels)
    assert [i for run in runs for i in run] == list(range(64))
    padded = []
    for run in runs:
        shapes = [pixels[i].shape for i in run]
        padded.append(len(run) * max(s[1] for s in shapes) * max(s[2] for s in shapes))
    assert max(padded) <= 64 * 512 * 512
    assert len(runs) <= 4


def test_ordinary_batches_stay_whole() -> None:
    pixels = [torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, 512, 512)] * 64
    assert padded_together(pixels) == [range(64)]
    assert padded_together(pixels[:1], most=1) == [range(1)]
    assert padded_together(pixels[:2], most=1) == [range(1), range(1, 2)]


class Uneven(torch.nn.Module):
    """Preprocessing whose inputs differ in size from view to view: the crop itself, unresized."""

    def forward(self, pictures: list[Tensor], boxes: Tensor, flips: Tensor) -> list[list[Tensor]]:
        return [
            [
                picture[:, : round(float(box[3]) * picture.shape[1]), :].flip(2 if flip else ())
                for box, flip in zip(of_one, flip_of_one, strict=True)
            ]
            for picture, of_one, flip_of_one in zip(pictures, boxes, flips, strict=True)
        ]


def test_inputs_of_unequal_sizes_are_put_together_by_the_scorer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores are the mean pixel: of every view, in order, whatever its size."""
    scorer = tiny_clip()
    scorer.preprocess = Uneven()  # type: ignore[assignment] # another kind of preprocessing
    monkeypatch.setattr(scorer, "collate", tuple)
    monkeypatch.setattr(
        scorer, "encode_inputs", lambda views: torch.stack([view.mean() for view in views])
    )
    monkeypatch.setattr(scorer, "match", lambda features, _: features)
    boxes, flips = views()
    prompts = ["one"] * len(SIZES)
    found = ViewScores(scorer)(pictures(), prompts, boxes, flips)
    for row, picture in zip(found, pictures(), strict=True):
        part = picture[:, : round(0.9 * picture.shape[1])] / 255
        assert row.tolist() == pytest.approx([float((picture / 255).mean()), float(part.mean())])
