"""What `stablepref finetune` does, once the command line is parsed."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from accelerate import PartialState

from stablepref.cli.options import read_setting
from stablepref.cli.score import Options

from ..ensemble import Ensemble
from ..finetune.config import FinetuneConfig
from ..finetune.run import finetune
from ..reward import DifferentiableReward
from .select import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.scorer import Scorer

    from ..finetune.run import Finetuned


@final
@dataclass(frozen=True)
class RewardOptions:
    """The reward, as typed.

    Attributes:
        models: Scorers; none for the default, several for the mean of their log-odds.
        views: Weak views beside each picture.
        reduce: Over a picture and its views.
        held_out: A second scorer.
        device: Where all of them run, and the pipeline.
        dtype: Number type of the scorers.
    """

    models: Sequence[str]
    views: int
    reduce: Literal["mean", "min"]
    held_out: str | None
    device: str | None
    dtype: str | None

    def load(self) -> tuple[Scorer, Scorer | None]:
        """The scorer, and the held-out one if there is one.

        Raises:
            ValueError: A model, device or number type is unknown, or a model of several was not
                trained on preferences.
            OSError: A model cannot be loaded.
        """
        names: Sequence[str | None] = self.models or [None]
        loaded = [self._options(name).load() for name in names]
        scorer = loaded[0] if len(loaded) == 1 else Ensemble(loaded, normalise="log-odds")
        return scorer, None if self.held_out is None else self._options(self.held_out).load()

    def _options(self, name: str | None) -> Options:
        """Those of a model; where a launcher has started several processes, on its own device."""
        device, found = self.device, torch.accelerator.current_accelerator()
        rank = os.environ.get("LOCAL_RANK")
        if device is None and rank is not None and found is not None:
            device = f"{found.type}:{rank}"
        return Options(name, None, device, self.dtype, 0)


def finetune_command(
    pipeline: str,
    settings: Mapping[str, str],
    options: RewardOptions,
    *,
    prompts: Sequence[str],
    prompt_file: Path | None,
    sample_file: Path | None,
    pipeline_dtype: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Load everything, fine-tune, and print what came of it.

    Raises:
        ValueError: A setting, a prompt, the pipeline or the folder cannot be used.
        FloatingPointError: The loss is not finite.
        OSError: A file cannot be read or written.
        ImportError: diffusers or peft is not installed.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    config = FinetuneConfig(
        **{name: read_setting(FinetuneConfig, name, text) for name, text in settings.items()}  # type: ignore[arg-type] # checked there
    )
    trained_on = [*prompts, *(read_prompts(prompt_file) if prompt_file else ())]
    if not trained_on:
        msg = "there is no prompt to train on; expected --prompt, or --prompts with a text file"
        raise ValueError(msg)
    watched = read_prompts(sample_file) if sample_file else None
    scorer, held_out = options.load()
    pipe: Any = load_pipeline(pipeline, dtype=pipeline_dtype, device=scorer.device)
    reward = DifferentiableReward(
        scorer,
        views=options.views,
        reduce=options.reduce,
        checkpointing=config.gradient_checkpointing,
        vae=pipe.components.get("vae"),
    )
    result = finetune(
        pipe, trained_on, reward, config, out=out, sample_prompts=watched, held_out=held_out
    )
    if PartialState().is_main_process:
        _print(result, as_json=as_json)


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not text, or has no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8: {error}"
        raise ValueError(msg) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        msg = f"{path} has no prompts; expected one in each line"
        raise ValueError(msg)
    return prompts


def _print(result: Finetuned, *, as_json: bool) -> None:
    if as_json:
        told = {
            "lora": str(result.lora),
            "first": asdict(result.first),
            "last": asdict(result.last),
            "signs": list(result.signs),
        }
        print(json.dumps(told, indent=1))
        return
    for name, before in result.first.scalars().items():
        print(f"{name:14} {before:10.4f} -> {result.last.scalars()[name]:10.4f}")
    for sign in result.signs:
        print(f"look at the samples: {sign}")
    print(f"pipe.load_lora_weights({str(result.lora)!r})")
