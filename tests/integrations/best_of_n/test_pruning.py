"""Pruning: the survivors' pictures are those of an unpruned run, and the right ones survive."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from helpers.brightness import Brightness
from helpers.pictured import with_pictures
from helpers.tiny_pipelines import build
from PIL import Image

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.best_of_n.pruning import check_prune
from stablepref.integrations.diffusion.x0 import SCHEDULERS

PROMPT = "a red circle"
STEPS = 6
FLOW = "FlowMatchEulerDiscreteScheduler"
CASES = [
    *(("sd", name) for name in SCHEDULERS if name != FLOW),
    ("sdxl", "DDIMScheduler"),
    *(  # as with "sd": schedulers do not know whose latents they step
        pytest.param("sdxl", name, marks=pytest.mark.slow)
        for name in SCHEDULERS
        if name not in (FLOW, "DDIMScheduler")
    ),
    *((kind, FLOW) for kind in ("sd3", "flux", "flux2", "qwen", "z-image", "sana", "lumina2")),
    ("pixart", "DPMSolverMultistepScheduler"),
    ("lcm", "LCMScheduler"),
    ("StableDiffusionControlNetPipeline", "DDIMScheduler"),
    ("StableDiffusion3ControlNetPipeline", FLOW),
    ("FluxControlNetPipeline", FLOW),
    *(
        pytest.param(f"{name}Pipeline", FLOW, marks=pytest.mark.slow)
        for name in (
            "QwenImageControlNet",
            "SanaControlNet",
            "ZImageControlNet",
            "StableDiffusion3ControlNetInpainting",
        )
    ),
]


def prepared(kind: str, scheduler: str) -> tuple[DiffusionPipeline, dict[str, object]]:
    pipe, arguments = with_pictures(kind) if kind.endswith("Pipeline") else build(kind)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    if scheduler == "DDIMScheduler":
        arguments["eta"] = 0.5  # with noise at every step
    return pipe, {**arguments, "num_inference_steps": STEPS}


def apart(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max())


@pytest.mark.parametrize(("kind", "scheduler"), CASES)
def test_survivors_are_as_without_pruning(kind: str, scheduler: str) -> None:
    pipe, arguments = prepared(kind, scheduler)
    whole = best_of_n(pipe, PROMPT, Brightness(), 5, keep=5, batch_size=5, **arguments)
    pruned = best_of_n(
        pipe,
        PROMPT,
        Brightness(),
        5,
        keep=2,
        batch_size=5,
        prune={0.34: 0.6, 0.67: 0.5},
        **arguments,
    )
    # 5 -> 3 after step 2, 3 -> 2 after step 4.
    faults = [candidate.fault or "" for candidate in pruned.candidates]
    assert sum("after 2 of 6 steps" in fault for fault in faults) == 2
    assert sum("after 4 of 6 steps" in fault for fault in faults) == 1
    assert [c.pruned for c in pruned.candidates] == [bool(fault) for fault in faults]
    assert len(pruned.kept) == 2
    for index, image in zip(pruned.kept, pruned.images, strict=True):
        expected = whole.images[list(whole.kept).index(index)]
        assert apart(image, expected) <= 1
        assert pruned.scores[index] == pytest.approx(whole.scores[index], abs=0.005)
    assert "step" not in vars(pipe.scheduler)
    assert apart(whole.images[0], whole.images[1]) > 10


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [("sd", "DDIMScheduler"), ("sd", "UniPCMultistepScheduler"), ("sd3", FLOW)],
)
def test_those_whose_predictions_score_worst_go(kind: str, scheduler: str) -> None:
    """x0 by its definition: from the noise prediction, the sample and the schedule alone."""
    pipe, arguments = prepared(kind, scheduler)
    arguments.pop("eta", None)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    step = pipe.scheduler.step

    def watched(
        output: torch.Tensor, t: torch.Tensor, sample: torch.Tensor, **kwargs: object
    ) -> object:
        seen.append((output, t, sample))
        return step(output, t, sample, **kwargs)

    pipe.scheduler.step = watched
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(i) for i in range(6)]
    pipe(PROMPT, num_images_per_prompt=6, generator=generators, **arguments)
    del pipe.scheduler.step
    output, t, sample = seen[2]  # the third of six
    if kind == "sd3":
        x0 = sample - t / 1000 * output
    else:
        alpha = pipe.scheduler.alphas_cumprod[int(t)]
        x0 = (sample - (1 - alpha).sqrt() * output) / alpha.sqrt()
    config = pipe.vae.config
    with torch.no_grad():
        decoded = pipe.vae.decode(x0 / config.scaling_factor + (config.shift_factor or 0)).sample
    shown = pipe.image_processor.postprocess(decoded, output_type="pil")
    scores = Brightness().score(shown, PROMPT)
    best = scores.topk(3).indices.tolist()
    selection = best_of_n(
        pipe, PROMPT, Brightness(), 6, batch_size=6, prune={0.5: 0.5}, **arguments
    )
    left = [c.index for c in selection.candidates if not c.pruned]
    assert sorted(left) == sorted(best)
    for candidate in selection.candidates:
        if candidate.fault:
            found = float(candidate.fault.rpartition(" ")[2])
            assert found == pytest.approx(scores[candidate.index].item(), abs=0.005)


def test_denoiser_calls_are_saved() -> None:
    pipe, arguments = prepared("sd", "DDIMScheduler")
    rows = 0

    def count(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    pipe.unet.register_forward_pre_hook(count)
    best_of_n(pipe, PROMPT, Brightness(), 8, batch_size=4, prune={0.5: 0.25}, **arguments)
    # Two batches of 4 for 3 steps and of 1 for 3 more, each row twice for guidance.
    assert rows == 2 * 2 * (4 * 3 + 1 * 3)


def test_pruned_candidates_on_disk(tmp_path: object) -> None:
    pipe, arguments = prepared("sd", "DDIMScheduler")
    call = {"batch_size": 4, "prune": {0.5: 0.5}, "out": str(tmp_path), **arguments}
    first = best_of_n(pipe, PROMPT, Brightness(), 4, **call)  # type: ignore[arg-type] # as above
    again = best_of_n(pipe, PROMPT, Brightness(), 4, **call)  # type: ignore[arg-type] # as above
    assert again.candidates == first.candidates
    assert sum(candidate.pruned for candidate in again.candidates) == 2


def test_a_decoder_that_overflows_in_half_precision_is_lifted() -> None:
    pipe, arguments = prepared("sdxl", "EulerDiscreteScheduler")
    vae = pipe.vae
    vae.register_to_config(force_upcast=True)
    types = []
    decode = AutoencoderKL.decode

    def watched(self: AutoencoderKL, z: torch.Tensor, **kwargs: object) -> object:
        types.append((self.dtype, z.dtype))
        return decode(self, z, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderKL, "decode", watched)
        vae.to(torch.float16)
        best_of_n(pipe, PROMPT, Brightness(), 2, batch_size=2, prune={0.5: 0.5}, **arguments)
    assert types[0] == (torch.float32, torch.float32)
    assert vae.dtype == torch.float16


@pytest.mark.parametrize(
    ("prune", "arguments", "says"),
    [
        ({0.0: 0.5}, {}, "above 0 and below 1"),
        ({0.5: 1.0}, {}, "above 0 and below 1"),
        ({0.5: 0.5}, {"callback_on_step_end": print}, "callback_on_step_end"),
        ({0.5: 0.5}, {"ip_adapter_image": 1}, "ip_adapter_image"),
        ({0.5: 0.5}, {"control_guidance_end": 0.5}, "control_guidance_end"),
        ({0.5: 0.5}, {"cfg_trunc_ratio": 0.5}, "cfg_trunc_ratio"),
    ],
)
def test_wrong_use(prune: dict[float, float], arguments: dict[str, object], says: str) -> None:
    pipe, _ = build("sd")
    with pytest.raises(ValueError, match=says):
        check_prune(pipe, prune, arguments)


def test_other_combinations_are_refused_before_sampling() -> None:
    pipe, arguments = build("sd")
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="StableDiffusionPipeline with HeunDiscreteScheduler"):
        best_of_n(pipe, PROMPT, Brightness(), 2, prune={0.5: 0.5}, **arguments)
    pipe.scheduler = DDIMScheduler()
    parts = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises(ValueError, match=r"is StableDiffusionImg2Img.*use best of n with"):
        check_prune(parts, {0.5: 0.5}, {})
    sd3, _ = build("sd3")
    sd3.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    with pytest.raises(ValueError, match="stochastic_sampling"):
        check_prune(sd3, {0.5: 0.5}, {})
