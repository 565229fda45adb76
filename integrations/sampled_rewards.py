"""Rewards in the form that policy-gradient trainers and noise searches call: scores, no gradient.

Each function takes a scorer, or anything that `stablepref.load` takes, and returns what its
trainer expects. Images go through `scorer.score`: uint8 arrays get the scorer's exact
preprocessing, float tensors its differentiable one. All may be called from several threads at once.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from stablepref.scorer import Scorer
from stablepref.zoo import load

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    Scores = tuple[list[float], dict[str, object]]

# What flow_grpo/rewards.py calls its own rewards: our name, and the divisor that makes the score
# what flow_grpo's own function returns (pickscore_scorer.py, clip_scorer.py and hpsv2_scorer.py,
# which returns the cosine). Its entry is "hpsv2_score"; its relatives say "hpsv2".
FLOW_GRPO_NAMES: Final = {
    "pickscore": ("pickscore-v1", 26.0),
    "clipscore": ("clip-vit-l-14", 30.0),
    "imagereward": ("imagereward-v1", 1.0),
    "aesthetic": ("laion-aesthetic-v2", 1.0),
    "hpsv2": ("hps-v2.1", 100.0),
    "hpsv2_score": ("hps-v2.1", 100.0),
}

# Rewards of flow_grpo/rewards.py that are not models of the zoo: the name of their factory there.
FLOW_GRPO_FUNCTIONS: Final = {
    "ocr": "ocr_score",
    "video_ocr": "video_ocr_score",
    "geneval": "geneval_score",
    "deqa": "deqa_score_remote",
    "qwenvl": "qwenvl_score",
    "unifiedreward": "unifiedreward_score_sglang",
    "image_similarity": "image_similarity_score",
    "jpeg_compressibility": "jpeg_compressibility",
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
    device: torch.device | str,
    score_dict: Mapping[str, float],
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[..., tuple[dict[str, Any], dict[str, object]]]:
    """What flow_grpo's training scripts call `flow_grpo.rewards.multi_score`.

    Put it in place of that function; `config.reward_fn` is then `score_dict`. With functions of
    your own, put `functools.partial(flow_grpo_multi_score, functions={...})` there.

    Args:
        device: Where the models run.
        score_dict: Weight of each reward by name. A name is looked up in `functions`; then in
            `FLOW_GRPO_NAMES`, flow_grpo's own names of models of the zoo, on flow_grpo's scale
            ("pickscore" is divided by 26, "clipscore" by 30, "hpsv2" by 100); then in
            `FLOW_GRPO_FUNCTIONS`, such as "ocr" or "geneval", which are flow_grpo's own functions
            where that package can be imported; any other name is a model that `stablepref.load`
            takes, whose score is used as it is.
        functions: Your own rewards by name: scorers; functions `(images, prompts, metadata) ->
            (scores, info)`, which may also ask for `ref_images` or `only_strict` by name; or
            factories of such functions, called with the device, or with nothing, as those in
            `flow_grpo/rewards.py` are.

    Returns:
        `reward(images, prompts, metadata, ref_images=None, only_strict=True)`, which returns the
        list of scores under each name, their weighted sum under "avg", and an empty dictionary.
        GenEval's accuracies are there too, under flow_grpo's names for them.

    Raises:
        ValueError: `score_dict` is empty, a name is unknown, or a function does not return a score
            for each image.
        TypeError: One of the functions is not callable.
        ImportError: A reward is flow_grpo's own, and that package, or what the reward needs, is not
            installed.
    """
    if not score_dict:
        msg = "score_dict is empty; expected the weight of each reward by name"
        raise ValueError(msg)
    own = functions or {}
    rewards = {name: _named_reward(name, own, device) for name in score_dict}

    def reward(
        images: torch.Tensor | NDArray[Any],
        prompts: Sequence[str],
        metadata: object,
        ref_images: object = None,
        only_strict: bool = True,
    ) -> tuple[dict[str, Any], dict[str, object]]:
        details: dict[str, Any] = {}
        total = [0.0] * len(images)
        for name, weight in score_dict.items():
            found = _called(rewards[name], images, prompts, metadata, ref_images, only_strict)
            scores, details_of_it = _scores_of(name, found, len(images))
            details |= {**details_of_it, name: scores}
            total = [sofar + weight * score for sofar, score in zip(total, scores, strict=True)]
        details["avg"] = total
        return details, {}

    return reward


def _named_reward(
    name: str, own: Mapping[str, Callable[..., Any]], device: torch.device | str
) -> Callable[..., Any]:
    """The reward function of a name in flow_grpo's `score_dict`."""
    if name in own:
        given: object = own[name]
        if isinstance(given, Scorer):
            return flow_grpo(given)(device)
        if not callable(given):
            msg = f"functions[{name!r}] is a {type(given).__name__}; expected a function"
            raise TypeError(msg)
        return _from_factory(given, device)
    if name in FLOW_GRPO_FUNCTIONS:
        try:
            theirs = import_module("flow_grpo.rewards")
            return _from_factory(getattr(theirs, FLOW_GRPO_FUNCTIONS[name]), device)
        except ImportError as error:
            msg = (
                f"{name!r} is a reward of flow_grpo itself, which needs its package and the "
                f"reward's own ({error}): run from its checkout, or pass a function of your own, "
                f"functions={{{name!r}: ...}}"
            )
            raise ImportError(msg) from error
    model, divisor = FLOW_GRPO_NAMES.get(name, (name, 1.0))
    return flow_grpo(model, divisor=divisor)(device)


def _from_factory(given: Callable[..., Any], device: torch.device | str) -> Callable[..., Any]:
    """The reward of a factory, which takes a device or nothing; a reward itself as it is."""
    takes = _positional(given)
    if takes is None or len(takes) > 1:
        return given
    made: Any = given(device) if takes else given()
    if not callable(made):
        msg = (
            f"a reward function of {takes or 'no arguments'} returned a {type(made).__name__}: "
            "it was called as a factory; expected a function (images, prompts, metadata), or a "
            "factory of one"
        )
        raise TypeError(msg)
    return made


def _positional(function: Callable[..., Any]) -> list[str] | None:
    """Names of the arguments that can be passed by position; None for any number of them."""
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _called(
    reward: Callable[..., Any],
    images: object,
    prompts: object,
    metadata: object,
    ref_images: object,
    only_strict: bool,
) -> Any:  # noqa: ANN401 (what other people's functions return)
    """What a reward returns, called as flow_grpo calls its own."""
    takes = _positional(reward)
    by_name: dict[str, object] = {"ref_images": ref_images, "only_strict": only_strict}
    wanted = {key: by_name[key] for key in inspect.signature(reward).parameters if key in by_name}
    places = 3 if takes is None else len([key for key in takes if key not in by_name])
    return reward(*(images, prompts, metadata)[:places], **wanted)


def _scores_of(name: str, found: object, count: int) -> tuple[list[float], dict[str, Any]]:
    """The scores of a reward as numbers, and what it reports beside them."""
    if not isinstance(found, tuple):
        msg = f"the reward {name!r} returned a {type(found).__name__}; expected (scores, info)"
        raise ValueError(msg)
    scores = [float(score) for score in found[0]]
    if len(scores) != count:
        msg = f"the reward {name!r} returned {len(scores)} scores for {count} images"
        raise ValueError(msg)
    details: dict[str, Any] = {}
    if len(found) == 5:  # GenEval's
        _, rewards, strict, groups, strict_groups = found
        details = {"accuracy": rewards, "strict_accuracy": strict}
        details |= {f"{key}_strict_accuracy": value for key, value in strict_groups.items()}
        details |= {f"{key}_accuracy": value for key, value in groups.items()}
    return scores, details


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

    Its registry makes verifiers by `verifier_cls(**verifier_args)`, of the configuration's
    `verifier_args`: put this class into `verifiers.SUPPORTED_VERIFIERS` and the model's name beside
    the other keys, `{"name": "stablepref", "model": "hps-v2.1", "choice_of_metric":
    "overall_score"}`.

    Attributes:
        SUPPORTED_METRIC_CHOICES: What `verifiers.SUPPORTED_METRICS` lists.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        choice_of_metric: The name under which scores are returned.
        verifier_args: Other keys of the configuration's `verifier_args`, such as `name` and
            `max_new_tokens`, which a scorer does not need.

    Raises:
        TypeError: `model` is missing, or there is a `metric` in place of `choice_of_metric`.
    """

    SUPPORTED_METRIC_CHOICES: ClassVar = ["overall_score"]

    def __init__(
        self,
        model: Scorer | str | os.PathLike[str] | None = None,
        *,
        choice_of_metric: str = "overall_score",
        **verifier_args: object,
    ) -> None:
        if "metric" in verifier_args:
            msg = "metric is called choice_of_metric, as in tt-scale-flux's configuration"
            raise TypeError(msg)
        if model is None:
            msg = (
                f"verifier_args has {', '.join(['choice_of_metric', *verifier_args])} and no "
                'model; add one, such as "model": "hps-v2.1"'
            )
            raise TypeError(msg)
        self.scorer = as_scorer(model)
        self.metric = choice_of_metric

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
