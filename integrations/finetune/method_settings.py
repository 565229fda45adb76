"""What each method of fine-tuning has of its own to set: parts of `FinetuneConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE

Spread = Literal["batch", "prompt"]
Combine = Literal["rewards", "advantages"]
OldPolicy = Literal["copy", "rising", "late", "steady"]
Noise = Literal["sde", "cps"]
PairWeights = Literal["equal", "order", "margin", "paper"]
Pairing = Literal["all", "extremes"]
WindowMoves = Literal["random", "sliding"]


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
        "a step up to 0.5, late inertia of 0.0075 a step after step 75, up to 0.999, or steady "
        "inertia of 0.9",
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


@dataclass(frozen=True, kw_only=True)
class GrpoSettings:
    """Of Flow-GRPO (Liu et al. 2025, arXiv:2505.05470) and its relatives."""

    grpo_noise: Annotated[
        Noise,
        "grpo: how steps of flow matching get noise: as a stochastic differential equation, or "
        "cps, which keeps the schedule's coefficients; DDIM's steps have their own",
    ] = "sde"
    grpo_eta: Annotated[
        float | None,
        "grpo: how much noise; if none 0.7, 0.8 for cps (Flow-GRPO's) and 1 for DDIM",
        Field(gt=0, le=1),
    ] = None
    grpo_clip: Annotated[
        float | None,
        "grpo: bound of the importance ratio; if none 1e-4, 1e-5 for cps and with a window at "
        "random (Flow-GRPO's), 2e-6 with grpo_guard (its authors')",
        POSITIVE,
    ] = None
    grpo_kl: Annotated[
        float | None,
        "grpo: weight of the divergence from the first policy; if none 0.04, and 0 for cps and "
        "with a window (Flow-GRPO's, MixGRPO's)",
        NOT_NEGATIVE,
    ] = None
    grpo_window: Annotated[
        int | None, "grpo: sampling steps with noise; all but the last if none", POSITIVE
    ] = None
    grpo_window_moves: Annotated[
        WindowMoves,
        "grpo: where the window lies: at random in the first half of the steps (Flow-GRPO-Fast), "
        "or sliding on from the first step (MixGRPO)",
    ] = "random"
    grpo_window_every: Annotated[
        int, "grpo: training steps after which a sliding window moves by one (MixGRPO's)", POSITIVE
    ] = 25
    grpo_same_noise: Annotated[
        bool, "grpo: begin all pictures of a prompt with the same noise (MixGRPO, DanceGRPO)"
    ] = False
    grpo_guard: Annotated[
        bool, "grpo: correct the ratio as GRPO-Guard does; for flow matching with sde"
    ] = False

    def check_guard(self) -> None:
        """Refuse what does not go together.

        Raises:
            ValueError: The corrected ratio is asked for noise that it is not made for.
        """
        if self.grpo_guard and self.grpo_noise != "sde":
            raise ValueError(
                f"grpo_guard is on and grpo_noise is {self.grpo_noise!r}; GRPO-Guard's ratio is "
                "for 'sde'"
            )


@dataclass(frozen=True, kw_only=True)
class DpoSettings:
    """Of Diffusion-DPO (Wallace et al. 2023, arXiv:2311.12908)."""

    dpo_beta: Annotated[
        float | None,
        "dpo: how strongly the first policy holds; if none 5000 (the paper's), and 2000 for flow "
        "matching",
        POSITIVE,
    ] = None
    dpo_pairs: Annotated[
        Pairing, "dpo: all pairs of a ranked group, or its extremes: the best against the worst"
    ] = "all"
    dpo_weights: Annotated[
        PairWeights,
        "dpo: weights of pairs: equal; by order or by margin, as Stable Preference weighs pairs "
        "(equations 7 and 8), on implicit margins; paper for order first and then margin",
    ] = "equal"
    dpo_order_steps: Annotated[
        int, "dpo: training steps by order before those by margin, with the paper's weights",
        NOT_NEGATIVE,
    ] = 20  # fmt: skip
    dpo_b: Annotated[float, "dpo: margin at which the weight by order is one half"] = 0.3
    dpo_tau: Annotated[float, "dpo: width of the weight by order", POSITIVE] = 0.2
