"""Rewards in the form that policy-gradient trainers and noise searches call: scores, no gradient.

Each function takes a scorer, or anything that `stablepref.load` takes, and returns what its
trainer expects. Images go through `scorer.score`: uint8 arrays get the scorer's exact
preprocessing, float tensors its differentiable one. All may be called from several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from stablepref.scorer import Scorer
from stablepref.zoo import load

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    Scores = tuple[list[float], dict[str, object]]

# What flow_grpo/rewards.py calls its own rewards: our name, and the divisor that it applies to the
# score (flow_grpo/pickscore_scorer.py and clip_scorer.py).
FLOW_GRPO_NAMES: Final = {
    "pickscore": ("pickscore-v1", 26.0),
    "clipscore": ("clip-vit-l-14", 30.0),
    "imagereward": ("imagereward-v1", 1.0),
    "aesthetic": ("laion-aesthetic-v2", 1.0),
}


def ddpo_pytorch(
    model: Scorer | str | os.PathLike[str],
) -> Callable[[], Callable[..., tuple[NDArray[np.float32], dict[str, object]]]]:
    """A reward factory for ddpo-pytorch, to be put into its `ddpo_pytorch.rewards`.

    Returns:
        A factory without arguments, which loads the model and returns
        `reward(images, prompts, metadata) -> (scores, {})`. The images are a float tensor
        `(batch, 3, H, W)` in [0, 1] or a uint8 array `(batch, H, W, 3)`; the scores a float32 array
        `(batch,)` in the scorer's unit.
    """

    def factory() -> Callable[..., tuple[NDArray[np.float32], dict[str, object]]]:
        scorer = as_scorer(model)

        def reward(
            images: torch.Tensor | NDArray[Any], prompts: Sequence[str], metadata: object
        ) -> tuple[NDArray[np.float32], dict[str, object]]:
            del metadata
            return scorer.score(images, prompts, progress=False).numpy(), {}

        return reward

    return factory


def flow_grpo(
    model: Scorer | str | os.PathLike[str], *, divisor: float = 1.0
) -> Callable[[torch.device | str], Callable[..., Scores]]:
    """A single reward for flow_grpo, in the form of those in its `flow_grpo/rewards.py`.

    Args:
        model: The scorer, or what `stablepref.load` loads it from on the device asked for.
        divisor: What scores are divided by; flow_grpo's own PickScore uses 26.

    Returns:
        `factory(device)`, which returns `reward(images, prompts, metadata) -> (scores, {})`. Images
        as for `ddpo_pytorch`; the scores a list of floats.
    """

    def factory(device: torch.device | str) -> Callable[..., Scores]:
        scorer = as_scorer(model, device)

        def reward(
            images: torch.Tensor | NDArray[Any], prompts: Sequence[str], metadata: object
        ) -> Scores:
            del metadata
            scores = scorer.score(images, prompts, progress=False) / divisor
            return scores.tolist(), {}

        return reward

    return factory


def flow_grpo_multi_score(
    device: torch.device | str, score_dict: Mapping[str, float]
) -> Callable[..., tuple[dict[str, list[float]], dict[str, object]]]:
    """What flow_grpo's training scripts call `flow_grpo.rewards.multi_score`.

    Put it in place of that function; `config.reward_fn` is then `score_dict`.

    Args:
        device: Where the models run.
        score_dict: Weight of each reward by name: one of flow_grpo's own, "pickscore" (divided by
            26), "clipscore" (divided by 30), "imagereward" or "aesthetic", or any model that
            `stablepref.load` takes, whose score is used as it is.

    Returns:
        `reward(images, prompts, metadata, ref_images=None, only_strict=True)`, which returns the
        list of scores under each name, their weighted sum under "avg", and an empty dictionary.

    Raises:
        ValueError: `score_dict` is empty.
    """
    if not score_dict:
        msg = "score_dict is empty; expected the weight of each reward by name"
        raise ValueError(msg)
    rewards = {}
    for name in score_dict:
        model, divisor = FLOW_GRPO_NAMES.get(name, (name, 1.0))
        rewards[name] = flow_grpo(model, divisor=divisor)(device)

    def reward(
        images: torch.Tensor | NDArray[Any],
        prompts: Sequence[str],
        metadata: object,
        ref_images: object = None,
        only_strict: bool = True,
    ) -> tuple[dict[str, list[float]], dict[str, object]]:
        del ref_images, only_strict  # for rewards of editing, and for GenEval
        details = {name: one(images, prompts, metadata)[0] for name, one in rewards.items()}
        rows = zip(*details.values(), strict=True)
        weights = score_dict.values()
        details["avg"] = [
            sum(weight * score for weight, score in zip(weights, row, strict=True)) for row in rows
        ]
        return details, {}

    return reward


def verl_omni(model: Scorer | str | os.PathLike[str]) -> Callable[..., dict[str, float]]:
    """A `compute_score` for verl-omni's visual reward managers, single or one of several.

    Returns:
        `compute_score(data_source, solution_image, ground_truth, extra_info, **kwargs)`, called by
        keywords, which returns `{"score": float}`. The image is a uint8 tensor `(3, H, W)`, or any
        other single image; `ground_truth` is its prompt. The manager runs it in threads.
    """
    scorer = as_scorer(model)

    def compute_score(
        data_source: object,
        solution_image: object,
        ground_truth: str,
        extra_info: object = None,
        **kwargs: object,
    ) -> dict[str, float]:
        del data_source, extra_info, kwargs
        scores = scorer.score(solution_image, ground_truth, progress=False)
        if len(scores) != 1:
            msg = f"verl-omni sends one image at a time, got {len(scores)}: videos are not scored"
            raise ValueError(msg)
        return {"score": scores.item()}

    return compute_score


@final
class TTScaleFluxVerifier:
    """A verifier for tt-scale-flux: search over initial noises for the best-scored image.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        metric: The configuration's `choice_of_metric`, under which scores are returned.
    """

    def __init__(
        self, model: Scorer | str | os.PathLike[str], *, metric: str = "overall_score"
    ) -> None:
        self.scorer = as_scorer(model)
        self.metric = metric
        self.SUPPORTED_METRIC_CHOICES = [metric]

    def prepare_inputs(
        self, images: object, prompts: str | Sequence[str], **_: object
    ) -> dict[str, object]:
        """Images, one or many, with one prompt for all or one each, kept for `score`."""
        return {"images": images, "prompts": prompts}

    def score(self, inputs: Mapping[str, Any], **_: object) -> list[dict[str, float]]:
        """One dictionary with the metric for each image."""
        scores = self.scorer.score(inputs["images"], inputs["prompts"], progress=False)
        return [{self.metric: score} for score in scores.tolist()]


def as_scorer(
    model: Scorer | str | os.PathLike[str], device: torch.device | str | None = None
) -> Scorer:
    """The scorer itself, or the one that `stablepref.load` loads."""
    return model if isinstance(model, Scorer) else load(model, device=device)
