"""What a fine-tuning begins with: pipelines it refuses, and what its weights depend on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from stablepref.weights.fingerprint import part_digests, scheduler_digest, weights_digest

from ..diffusion.pipelines import refuse_safety_checker
from .ddpo import check_policy
from .lora import check_no_adapters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer

    from .config import FinetuneConfig
    from .latent_reward import LatentReward


def check_trainable(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse what would train on other pictures than the pipeline is to make.

    Raises:
        ValueError: It has a safety checker or adapters, or a scheduler without policy for ddpo.
    """
    check_no_adapters(pipe)
    refuse_safety_checker(pipe)
    if config.method == "ddpo":
        check_policy(pipe.scheduler)


def described_finetuning(
    config: FinetuneConfig,
    pipe: Any,  # noqa: ANN401 (as above)
    reward: LatentReward,
    prompts: Sequence[str],
    shown: Sequence[str],
    *,
    held_out: Scorer | None,
) -> dict[str, Any]:
    """What the trained weights and their reports depend on, as it is read back from JSON.

    Args:
        config: The configuration.
        pipe: The pipeline, before LoRA matrices are put on it.
        reward: The reward.
        prompts: To train on.
        shown: To watch.
        held_out: To watch them by.
    """
    values = {
        **config.exact_values(),
        **_pipeline(pipe),
        **reward.described(),
        "prompts": _fingerprint(prompts),
        "sample_prompts": _fingerprint(shown),
        "held_out": None if held_out is None else held_out.name,
        "held_out_weights": None if held_out is None else weights_digest(held_out),
    }
    read_back: dict[str, Any] = json.loads(json.dumps({"config": values}))
    return read_back


def _pipeline(pipe: Any) -> dict[str, object]:  # noqa: ANN401 (as above)
    """What pictures of a pipeline depend on, plain JSON values."""
    return {
        "pipeline": type(pipe).__name__,
        "pipeline_dtype": str(pipe.dtype).removeprefix("torch."),
        "pipeline_weights": " ".join(part_digests(pipe.components).values()),
        "scheduler": scheduler_digest(pipe.scheduler),
    }


def _fingerprint(prompts: Sequence[str]) -> str:
    digest = hashlib.blake2b("\0".join(prompts).encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{len(prompts)} prompts, {digest.hexdigest()}"
