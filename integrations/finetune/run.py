"""Fine-tuning of a text-to-image pipeline on a reward, by back-propagation or policy gradient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from stablepref.output.locks import sole_writer
from stablepref.runtime.threads import threads_for
from stablepref.scoring.prompts import check_prompts
from stablepref.training.distributed import engine
from stablepref.training.optimizer import build_optimizer
from stablepref.training.resume import checkpoint_of

from ..diffusion.denoiser import check_denoisable
from ..diffusion.families import family_of, own_guidance
from ..diffusion.pipelines import modules_of, refuse_safety_checker, require_pipeline
from ..diffusion.sampling import SamplingLoop
from ..diffusion.schedulers import use_scheduler
from ..monitor import RewardMonitor
from ..sampled_rewards import as_scorer
from .batches import sample_pictures
from .config import FinetuneConfig
from .dpo_pairs import pairs_of
from .latent_reward import LatentReward
from .loop import Finetuned, train
from .lora import check_no_adapters
from .methods import METHODS
from .policies import Policies
from .samples import SampleWatch
from .state import FinetuneRun, described_finetuning
from .weights import check_precision

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from stablepref.data.groups import RankedGroup
    from stablepref.scorer import Scorer

    from .latent_reward import RewardLike, WeightedReward

GUIDED_BY_PAPER: Final = {"nft": 0.0, "grpo": 3.5}
"""How far above no guidance the scale is: DiffusionNFT has none, Flow-GRPO 4.5, where 1 is none."""
LEAST_WATCHED: Final = 2
"""Pictures of which a report can be made."""


def finetune(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    prompts: Sequence[str] | None,
    reward: RewardLike | Sequence[WeightedReward],
    config: FinetuneConfig | None = None,
    *,
    out: str | os.PathLike[str],
    sample_prompts: Sequence[str] | None = None,
    held_out: Scorer | str | os.PathLike[str] | None = None,
    groups: Iterable[RankedGroup] | None = None,
    scheduler: str | None = None,
    progress: bool | None = None,
) -> Finetuned:
    """Train LoRA matrices on a pipeline's denoiser for a higher reward, or resume.

    The same call after a kill resumes from the last checkpoint, to the same weights. Works in one
    process or, started by ``torchrun`` or ``accelerate launch``, in many. At the end the matrices
    are on `pipe` itself, which draws with them; all of its other weights are frozen. Whatever ends
    the training early takes them off again.

    Args:
        pipe: A pipeline of `stablepref.integrations.diffusion.families.trainable()` in float32 or
            bfloat16, on its device, without a safety checker.
        prompts: To train on; None for those of `groups`.
        reward: A robust or plain reward, on the pipeline's device; a scorer or what
            `stablepref.load` takes is its plain reward.
        config: Everything else; None for the defaults.
        out: Folder for checkpoints, metrics.jsonl, sheets of samples and the weights in `lora`.
        sample_prompts: Prompts of the samples; None for the first of `prompts`.
        held_out: A second scorer that nothing optimises, to measure the samples by.
        groups: Ranked pictures to train on with method "dpo", as `stablepref.data.read_groups`
            reads them; the reward then only measures the samples. Their order counts.
        scheduler: One of `stablepref.integrations.diffusion.schedulers.NAMED`, such as "ddim", to
            put in the place of the pipeline's own; it stays there.
        progress: Show a progress bar; None shows one in a terminal.

    Returns:
        Where the weights are, and what the samples show before and after.

    Raises:
        TypeError: A pipeline, reward or prompt is of a wrong kind.
        ValueError: The pipeline, its scheduler or a setting cannot be used, `out` holds another
            training, or a picture or reward is not finite, which names the step.
        FloatingPointError: The loss or its gradient is not finite; names the step.
        ImportError: peft, or the package of `config.log_with`, is not installed.
        InUseError: Another process is training in `out`.
        OSError: A file cannot be written; checkpoints from before stay.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, once the step's checkpoint is written.
    """
    config, folder = config or FinetuneConfig(), Path(out)
    ranked = checked_groups(groups, config)
    pairs = pairs_of(ranked, config.dpo_pairs) if ranked else []
    if prompts is None:
        prompts = list(dict.fromkeys(group.prompt for group in ranked))
    prompts = check_prompts(prompts)
    shown = check_prompts(sample_prompts) if sample_prompts is not None else prompts
    require_pipeline(pipe)
    use_scheduler(pipe, scheduler)
    guidance = guidance_of(pipe, config)
    loop = SamplingLoop(
        pipe,
        steps=config.sampling_steps,
        guidance=guidance,
        negative_prompt=config.negative_prompt,
        height=config.height,
        width=config.width,
        checkpointing=config.gradient_checkpointing,
    )
    watching = SamplingLoop(
        pipe,
        steps=config.sample_steps or config.sampling_steps,
        guidance=guidance if config.sample_guidance is None else config.sample_guidance,
        negative_prompt=config.negative_prompt,
        height=config.height,
        width=config.width,
    )
    check_trainable(pipe, config)
    judge = LatentReward(pipe, reward, decode=loop.decode if loop.packed else None)
    if METHODS[config.method].gradient and judge.scorer.joint:
        without = [f'"{name}"' for name, row in METHODS.items() if not row.gradient]
        msg = (
            f"{judge.scorer.name} has no gradient, which method={config.method!r} needs; use the "
            f"method {' or '.join(without)}"
        )
        raise ValueError(msg)
    monitor = RewardMonitor(
        judge.scorer,
        held_out=None if held_out is None else as_scorer(held_out, pipe.device),
        views=config.monitor_views,
    )
    watched = sample_pictures(
        shown[: config.samples], each=config.pictures_per_sample, seed=config.seed
    )
    if len(watched) < LEAST_WATCHED:
        msg = (
            f"there is {len(watched)} sample, and a report needs {LEAST_WATCHED}: give "
            "more sample_prompts or pictures_per_sample"
        )
        raise ValueError(msg)
    with (
        engine(config, folder) as accelerator,
        sole_writer(folder, folder=True, active=accelerator.is_main_process),
        torch.enable_grad(),
    ):
        if config.batch_size % accelerator.num_processes:
            msg = (
                f"batch_size is {config.batch_size}; expected a multiple of the "
                f"{accelerator.num_processes} processes"
            )
            raise ValueError(msg)
        described = described_finetuning(
            config,
            pipe,
            judge,
            prompts,
            shown[: config.samples],
            held_out=monitor.held_out,
            guidance=guidance,
            groups=ranked,
        )
        found = checkpoint_of(folder, described, resume=True)
        if found is not None and found.step > config.steps:
            msg = f"{folder} holds a training of {found.step} steps, steps is {config.steps}"
            raise ValueError(msg)
        at_once = config.micro_batch_size or config.batch_size
        watch = SampleWatch(watching, monitor, watched, at_once, folder)
        policies = Policies.of(pipe, config)
        try:
            optimizer = build_optimizer(
                policies.trained,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.999),
                eps=1e-8,
            )
            # Not wrapped for DDP: sampling calls the denoiser many times before it goes back once.
            for module in policies.modules():
                accelerator.prepare_model(module, device_placement=False, evaluation_mode=True)
            run = FinetuneRun(
                accelerator, loop, judge, policies,
                accelerator.prepare_optimizer(optimizer, device_placement=False),
                config, prompts, folder, described, pairs,
            )  # fmt: skip
            with threads_for(*modules_of(pipe), judge.scorer):
                return train(run, watch, found, progress=progress)
        except BaseException:
            policies.withdraw()
            raise


def guidance_of(pipe: Any, config: FinetuneConfig) -> float:  # noqa: ANN401 (diffusers has no types)
    """The scale of guidance of the pictures to train on, as the pipeline's call takes it.

    Raises:
        TypeError, ValueError: It is a pipeline that is not known, or has no scale of its own.
    """
    check_denoisable(pipe)
    if config.guidance is not None:
        return config.guidance
    unguided = family_of(pipe).unguided
    if unguided is None or config.method not in GUIDED_BY_PAPER:
        return own_guidance(pipe)
    return unguided + GUIDED_BY_PAPER[config.method]


def check_trainable(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse what would train on other pictures than the pipeline is to make.

    Raises:
        ValueError: It loads no LoRA that is asked for, has a safety checker or adapters, a denoiser
            in half precision of which all
            weights are to be trained, or a scheduler that the method cannot use.
    """
    check_no_adapters(pipe)
    refuse_safety_checker(pipe)
    if not config.rank:
        check_precision(pipe)
    elif not hasattr(pipe, "save_lora_weights"):
        msg = f"{type(pipe).__name__} loads no LoRA; train all of its weights, with rank=0"
        raise ValueError(msg)
    METHODS[config.method].check(pipe, config)


def checked_groups(
    groups: Iterable[RankedGroup] | None, config: FinetuneConfig
) -> list[RankedGroup]:
    """The ranked groups to train on; none for a method that does not.

    Raises:
        ValueError: They are missing, or there are some that the method does not train on.
    """
    wanted = METHODS[config.method].pairs
    if wanted and groups is None:
        msg = f"method={config.method!r} trains on ranked pictures; give groups=read_groups(...)"
        raise ValueError(msg)
    if groups is not None and not wanted:
        msg = f"method={config.method!r} does not train on groups; leave them out, or use 'dpo'"
        raise ValueError(msg)
    return list(groups or ())
