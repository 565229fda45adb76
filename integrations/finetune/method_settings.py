"""What each method of fine-tuning has of its own to set: parts of `FinetuneConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE

Spread = Literal["batch", "prompt"]
Combine = Literal["rewards", "advantages"]
OldPolicy = Literal["copy", "rising", "late"]


@dataclass(frozen=True, kw_only=True)
class BackpropSettings:
    """Of DRaFT and ReFL."""

    last_steps: Annotated[
        int,
        "draft: sampling steps with a gradient, counted from the end (K); refl: one of "
        "that many last steps, at random",
        POSITIVE,
    ] = 1
    margin: Annotated[
        float | None, "draft and refl: no gradient from rewards above this, as in ReFL"
    ] = None

    def check_last_steps(self, sampling_steps: int) -> None:
        """Compare with the steps that there are.

        Raises:
            ValueError: There are fewer.
        """
        if self.last_steps > sampling_steps:
            raise ValueError(
                f"last_steps is {self.last_steps} of {sampling_steps} sampling_steps; "
                "expected no more"
            )


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings:
    """Of the methods that compare the pictures of a prompt: DDPO, Flow-GRPO, DiffusionNFT."""

    updates: Annotated[
        int | None,
        "optimiser steps on each step's pictures, each on all of them; if none 1, and 2 for ddpo",
        POSITIVE,
    ] = None
    advantage_std: Annotated[
        Spread | None,
        "what advantages are divided by: the rewards' deviation over the batch (Flow-GRPO's) or "
        "over the prompt's pictures; if none batch, and prompt for ddpo",
    ] = None
    combine: Annotated[
        Combine,
        "of several weighted rewards: add the rewards, or the advantages of each (MixGRPO's)",
    ] = "rewards"


@dataclass(frozen=True, kw_only=True)
class DdpoSettings:
    """Of DDPO (Black et al. 2023)."""

    eta: Annotated[float, "ddpo: noise of DDIM's steps, above 0, to 1", Field(gt=0, le=1)] = 1.0
    clip_range: Annotated[
        float,
        "ddpo: bound of the importance ratio (ddpo-pytorch's)",
        POSITIVE,
    ] = 1e-4


@dataclass(frozen=True, kw_only=True)
class NftSettings:
    """Of DiffusionNFT (Zheng et al. 2025, arXiv:2509.16117)."""

    nft_beta: Annotated[
        float,
        "nft: share of the trained policy in the good and the bad prediction (its code's 1, and "
        "0.1 for several rewards)",
        POSITIVE,
    ] = 1.0
    nft_old: Annotated[
        OldPolicy,
        "nft: how the policy that draws follows: a copy after each step, rising inertia of 0.001 "
        "a step up to 0.5, or late inertia of 0.0075 a step after step 75, up to 0.999",
    ] = "rising"
    nft_kl: Annotated[
        float, "nft: weight of the squared distance to the first policy (its code's)", NOT_NEGATIVE
    ] = 1e-4
    nft_timesteps: Annotated[
        int | None,
        "nft: noise levels that each picture is trained at in an update, at random among the "
        "sampling steps; all of them if none",
        POSITIVE,
    ] = None

    def check_timesteps(self, sampling_steps: int) -> None:
        """Compare with the steps that there are.

        Raises:
            ValueError: There are fewer.
        """
        if (self.nft_timesteps or 0) > sampling_steps:
            raise ValueError(
                f"nft_timesteps is {self.nft_timesteps} of {sampling_steps} sampling_steps; "
                "expected no more"
            )
