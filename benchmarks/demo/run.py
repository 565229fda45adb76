"""One demonstration of what a reward is good for: selection, its stability, and fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.best_of_n.selection import in_order
from stablepref.integrations.sampled_rewards import as_scorer
from stablepref.output.durable import replacing
from stablepref.output.progress import progress_bar
from stablepref.scoring.prompts import check_prompts

from ..shapes.pipeline.parts import GUIDANCE, STEPS
from .finetune import check_finetuning, short_config, tune
from .page import write_demo_page
from .picture import draw_card
from .result import Demo
from .stability import stability
from .truth import judged, load_oracle

if TYPE_CHECKING:
    import os

    from stablepref.scorer import Scorer

PAGE: Final = "index.html"
PICTURE: Final = "demo.png"
NUMBERS: Final = "demo.json"
FEWEST: Final = 2
"""Candidates that have a best and an average."""


def demo(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    prompt: str,
    scorer: Scorer | str | os.PathLike[str] = "shapes",
    *,
    out: str | os.PathLike[str],
    n: int = 100,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    finetune: bool = False,
    progress: bool | None = None,
) -> Demo:
    """Make candidates of a prompt, choose the best, see how stable the choice is, and show it all.

    The folder then holds `index.html`, a page with everything inside it; `demo.png`; `demo.json`,
    all numbers; and what `best_of_n` and `finetune` write. After an interruption the same call
    resumes there.

    Args:
        pipe: A diffusers pipeline that makes images of a text prompt.
        prompt: What to make. The oracle knows prompts of the shapes laboratory; of others it is
            said that the truth is not known.
        scorer: The reward model, or what `stablepref.load` takes.
        out: The folder.
        n: Number of candidates, at least two.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        seed: Of the first candidate; 0 or more with `finetune`.
        finetune: Also fine-tune the pipeline shortly on prompts of the laboratory, and show
            pictures of others before and after it; needs a pipeline that draws the laboratory's
            pictures and that `stablepref.integrations.finetune.run.finetune` takes. The pipeline
            draws as before at the end.
        progress: Show progress bars; None shows them in a terminal once work takes seconds.

    Raises:
        TypeError: As `best_of_n`.
        ValueError: As `best_of_n`; fewer than two candidates have a score; or the pipeline cannot
            be fine-tuned.
        ResumeError: `out` holds candidates of other settings.
        ImportError: matplotlib or scipy is not installed.
        OSError: `out` cannot be written.
    """
    if n < FEWEST:
        msg = f"n is {n}; expected {FEWEST} or more, so that there is an average beside the best"
        raise ValueError(msg)
    (prompt,) = check_prompts([prompt])
    folder, oracle, judge = Path(out), load_oracle(), as_scorer(scorer)
    config = short_config(seed=seed) if finetune else None
    if config is not None:
        check_finetuning(pipe, judge, config)
    selection = best_of_n(
        pipe,
        prompt,
        judge,
        n,
        seed=seed,
        out=folder,
        progress=progress,
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    call = {"num_inference_steps": steps, "guidance_scale": guidance}
    order = in_order(selection.candidates)
    if len(order) < FEWEST:
        msg = f"of {n} candidates {len(order)} has a score; expected {FEWEST} or more"
        raise ValueError(msg)
    indices = [candidate.index for candidate in order]

    def picture(index: int) -> Any:  # noqa: ANN401
        return selection.picture(selection.candidates[index])

    with progress_bar("looking", total=len(order), show=progress) as advance:
        pictures = ((index, picture(index)) for index in indices)
        truth = judged(oracle, prompt, pictures, advance)
    stable = stability(judge, prompt, indices, picture, progress=progress)
    tuned = None
    if config is not None:
        tuned = tune(pipe, judge, config, out=folder, progress=progress)
    shown = Demo(selection, order, stable, truth, tuned, call, folder / PAGE, folder / PICTURE)
    draw_card(shown.picture, shown)
    with replacing(folder / NUMBERS) as staging:
        staging.write_text(json.dumps(shown.row(), indent=1) + "\n", encoding="utf-8")
    write_demo_page(shown.page, shown)
    return shown
