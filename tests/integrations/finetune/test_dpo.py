"""Diffusion-DPO: pairs of ranked groups, implicit margins and weights against naive loops."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    QwenImageImg2ImgPipeline,
)
from helpers.brightness import Brightness
from helpers.tiny_finetune import (
    PROMPTS,
    SIDE,
    bright,
    generators,
    in_float64,
    moved,
    pipeline,
    plain_run,
    quick,
)
from PIL import Image
from torch import Tensor

from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.integrations.diffusion.latents import decode_latents, encode_pictures
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.dpo import dpo_step
from stablepref.integrations.finetune.dpo_pairs import (
    Pair,
    PairLatents,
    pairs_of,
    step_pairs,
)
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.finetune.state import FinetuneRun

DPO: dict[str, Any] = {"method": "dpo", "batch_size": 3, "gradient_checkpointing": False}


def picture(seed: int, *, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


PAIRS = [Pair(PROMPTS[i % 2], picture(2 * i), picture(2 * i + 1)) for i in range(3)]


def test_pairs_of_ranked_groups() -> None:
    groups = [RankedGroup("a", ("w", "x", "y", "z"), (2, 1, 2, 5))]  # names stand for pictures
    every = pairs_of(groups, "all")
    assert {pair[1:] for pair in every} == {
        ("x", "w"), ("x", "y"), ("x", "z"), ("w", "z"), ("y", "z")
    }  # fmt: skip
    assert pairs_of(groups, "extremes") == [Pair("a", "x", "z")]


def test_ties_make_no_pair() -> None:
    tied = RankedGroup("b", ("p", "q"), (1, 1))
    assert pairs_of([RankedGroup("a", ("p", "q"), (2, 1)), tied], "all") == [Pair("a", "q", "p")]
    for pairing in ("all", "extremes"):
        with pytest.raises(ValueError, match="1 ranked groups hold no pair"):
            pairs_of([tied], pairing)  # type: ignore[arg-type] # one of the two


def test_every_pair_is_used_once_in_each_epoch() -> None:
    steps = [step_pairs(PAIRS, step, batch_size=2, seed=5) for step in range(6)]
    found = [one for step in steps for one in step]
    for epoch in range(4):
        taken = [one.pair.better for one in found[3 * epoch : 3 * epoch + 3]]
        assert {id(one) for one in taken} == {id(pair.better) for pair in PAIRS}
    assert len({one.seed for one in found}) == len(found)
    assert steps[3] == step_pairs(PAIRS, 3, batch_size=2, seed=5)


@pytest.mark.parametrize("kind", ["sd", "sd3", "sana"])
def test_what_is_encoded_decodes_to_what_the_vae_makes_of_it(kind: str) -> None:
    vae = pipeline(kind).vae
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = vae.encode(2 * pixels - 1)
        raw = found.latent if kind == "sana" else found.latent_dist.mode()
        expected = vae.decode(raw, return_dict=False)[0]
        again = decode_latents(vae, encode_pictures(vae, pixels))
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)


def test_pictures_fill_the_size_that_is_made() -> None:
    """A wide picture of three stripes is scaled to the height and cut at the centre."""
    levels = np.zeros((8, 24, 3), np.uint8)
    levels[:, 8:16] = 255
    latents = PairLatents(loop_of("sd"))
    middle = latents._pixels(Image.fromarray(levels))
    assert middle.shape == (3, SIDE, SIDE)
    assert middle[:, :, 2:-2].min() > 0.95
    assert torch.equal(latents._pixels(picture(0)), torch.from_numpy(
        np.asarray(picture(0)).transpose(2, 0, 1).copy()).float() / 255)  # fmt: skip


@pytest.mark.parametrize("kind", ["flux", "flux2", "qwen"])
def test_packed_latents_of_pictures_are_the_pipelines_own(kind: str) -> None:
    """They decode to what the VAE makes of a picture, and are those of diffusers' own pipelines."""
    loop, side = loop_of(kind), 32
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert loop.size == (side, side)
    found = loop.encode(pixels)
    assert found.shape == loop.noise(generators(2)).shape
    vae, signed = loop.pipe.vae, 2 * pixels - 1
    with torch.no_grad():
        given = signed.unsqueeze(2) if kind == "qwen" else signed
        raw = vae.decode(vae.encode(given).latent_dist.mode()).sample
        expected = ((raw[:, :, 0] if kind == "qwen" else raw) + 1) / 2
        torch.testing.assert_close(loop.decode(found), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)
        theirs = own_latents(kind, loop.pipe, signed)
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-6)


def own_latents(kind: str, pipe: Any, signed: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """As diffusers encodes pictures that it begins with, or edits, before noise is mixed in."""
    if kind == "flux2":
        made, _ = pipe.prepare_image_latents(
            [picture[None] for picture in signed], 1, None, signed.device, signed.dtype
        )
        return made.view(len(signed), -1, made.shape[-1])  # type: ignore[no-any-return] # diffusers
    other = {"flux": FluxImg2ImgPipeline, "qwen": QwenImageImg2ImgPipeline}[kind]
    parts = pipe.components.items()
    img2img = other(**{name: part for name, part in parts if part is not None})
    encode = type(pipe.vae).encode

    def likeliest(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (diffusers has no types)
        found = encode(self, *args, **kwargs)
        found.latent_dist.sample = lambda generator=None: found.latent_dist.mode()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipe.vae), "encode", likeliest)
        patch.setattr(img2img.scheduler, "scale_noise", lambda image, time, noise: image)
        made = img2img.prepare_latents(
            signed, None, len(signed), 4, 32, 32, signed.dtype, signed.device,
            [torch.Generator() for _ in signed],
        )  # fmt: skip
    return made[0] if kind == "flux" else made  # type: ignore[no-any-return] # diffusers


def loop_of(kind: str) -> SamplingLoop:
    side = SIDE if kind == "sd" else 32
    return SamplingLoop(pipeline(kind), steps=2, guidance=1.0, height=side, width=side)


def test_latents_are_remembered_within_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those used longest ago go; what is encoded again is the same bit for bit in any batch."""
    loop = loop_of("sd")
    encoded: list[int] = []
    encode = SamplingLoop.encode

    def watched(self: SamplingLoop, pictures: Tensor) -> Tensor:
        encoded.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(SamplingLoop, "encode", watched)
    drawn = step_pairs(PAIRS, 0, batch_size=3, seed=0)
    every = PairLatents(loop)
    first = every(drawn)
    assert encoded == [1] * 6
    assert torch.equal(every(drawn), first)
    assert len(encoded) == 6
    assert torch.equal(every(drawn[1:2]), first[[1, 4]])
    few = PairLatents(loop, most_bytes=2 * first[0].nbytes)
    encoded.clear()
    assert torch.equal(few(drawn[:1]), first[[0, 3]])
    few(drawn[:1])
    assert len(encoded) == 2
    assert torch.equal(few(drawn), first)
    assert len(encoded) == 2 + 5  # the first one was there, and the first worse one had to go
    assert sum(value.nbytes for _, value in few._known.values()) <= 2 * first[0].nbytes
    none = PairLatents(loop, most_bytes=0)
    assert torch.equal(none(drawn), first)


@pytest.mark.parametrize(("kind", "beta"), [("epsilon", 5000.0), ("flow", 2000.0)])
def test_how_strongly_the_first_policy_holds_by_default(
    kind: str, beta: float, tmp_path: Path
) -> None:
    """The paper's beta for Stable Diffusion, and that of trainers of flow matching."""
    found = [
        dpo_step(begun(kind, tmp_path, dpo_beta=value), 0)["margin"] for value in (None, beta, 1.0)
    ]
    assert found[0] == found[1] == pytest.approx(beta * found[2])
    assert found[2] != 0


def begun(kind: str, folder: Path, **settings: object) -> FinetuneRun:
    pipe = pipeline("sd3" if kind == "flow" else "sd")
    if kind != "flow":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    pipe = in_float64(pipe)
    given: dict[str, Any] = {**DPO, "dpo_beta": 30.0, **settings}
    return plain_run(pipe, Brightness().double(), folder, pairs=PAIRS, **given)


def naive_margins(run: FinetuneRun, kind: str) -> list[Tensor]:
    """One by one: the better and the worse picture, with and without the adapter."""
    pipe, found = run.loop.pipe, []
    network = pipe.transformer if kind == "flow" else pipe.unet
    for one in step_pairs(PAIRS, 0, batch_size=3, seed=0):
        error = {}
        for name, image in (("w", one.pair.better), ("l", one.pair.worse)):
            pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None] / 255.0
            with torch.no_grad():
                mode = pipe.vae.encode(2 * pixels.float().double() - 1).latent_dist.mode()
            shift = pipe.vae.config.shift_factor or 0.0
            x0 = (mode - shift) * pipe.vae.config.scaling_factor
            generator = torch.Generator().manual_seed(one.seed)
            if kind == "flow":
                sigma = torch.randn((), generator=generator).double().sigmoid()
                time, a, s = (1000 * sigma).float(), 1 - sigma, sigma
            else:
                time = torch.randint(1000, (), generator=generator)
                kept = pipe.scheduler.alphas_cumprod[time].double()
                a, s = kept.sqrt(), (1 - kept).sqrt()
            noise = torch.randn(x0.shape[1:], generator=generator)[None].double()
            goal = {"epsilon": noise, "v_prediction": a * noise - s * x0, "flow": noise - x0}[kind]
            x = a * x0 + s * noise
            for adapter in ("new", "ref"):
                if adapter == "ref":
                    network.disable_adapters()
                output = run.loop.denoise(x, time, [one.prompt], guided=False)
                network.enable_adapters()
                error[name, adapter] = (output - goal).square().mean()
        new = error["w", "new"] - error["l", "new"]
        found.append(-0.5 * 30 * (new - (error["w", "ref"] - error["l", "ref"]).detach()))
    return found


@pytest.mark.parametrize(("kind", "weights"), [
    ("epsilon", "equal"), ("v_prediction", "order"), ("flow", "margin"),
])  # fmt: skip
def test_weights_move_along_the_gradient_of_a_naive_loss(
    kind: str, weights: str, tmp_path: Path
) -> None:
    """Of -log sigmoid of implicit margins, with the weights of equations 7 and 8 written out."""
    run = begun(kind, tmp_path, dpo_weights=weights)
    margins = naive_margins(run, kind)
    values = [float(margin) for margin in margins]
    importance = {
        "equal": [1 / 3] * 3,
        "order": [1 / (1 + math.exp((value - 0.3) / 0.2)) / 3 for value in values],
        "margin": [math.exp(value) / sum(map(math.exp, values)) for value in values],
    }[weights]
    total = sum(
        weight * torch.log1p((-margin).exp())
        for weight, margin in zip(importance, margins, strict=True)
    )
    names, trained = zip(*run.policies.trained.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, trained, allow_unused=True)  # type: ignore[arg-type] # a tensor
    expected = {n: g for n, g in zip(names, gradients, strict=True) if g is not None}
    assert max(value.abs().max() for value in expected.values()) > 1e-6
    metrics: dict[str, float] = {}
    found = moved(run, lambda run, step: metrics.update(dpo_step(run, step)))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], -gradient, rtol=1e-4, atol=1e-9)
    assert metrics["loss"] == pytest.approx(float(total), rel=1e-6)
    assert metrics["margin"] == pytest.approx(sum(values) / 3, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(sum(value > 0 for value in values) / 3)
    assert max(map(abs, values)) > 1e-3


def test_a_solver_of_flow_matching_gets_the_noise_of_flow_matching(tmp_path: Path) -> None:
    """Sana comes with such a one; its prediction is the flow, whatever it is called."""
    pipe = in_float64(pipeline("sd3"))
    found = []
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    ):
        pipe.scheduler = scheduler
        run = plain_run(pipe, Brightness().double(), tmp_path, pairs=PAIRS, dpo_beta=30.0, **DPO)
        found.append(moved(run, dpo_step))
        run.policies.withdraw()
    assert max(step.abs().max() for step in found[0].values()) > 1e-6
    for name, step in found[0].items():
        torch.testing.assert_close(found[1][name], step, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("weights", ["equal", "margin"])
def test_micro_batches_change_nothing(weights: str, tmp_path: Path) -> None:
    found = [
        moved(begun("epsilon", tmp_path, dpo_weights=weights, micro_batch_size=size), dpo_step)
        for size in (None, 2)
    ]
    assert max(step.abs().max() for step in found[0].values()) > 1e-6
    for name, step in found[0].items():
        torch.testing.assert_close(found[1][name], step, rtol=1e-5, atol=1e-10)


def test_the_papers_weights_are_by_order_and_then_by_margin(tmp_path: Path) -> None:
    found = {
        name: moved(begun("epsilon", tmp_path, **settings), dpo_step)
        for name, settings in {
            "order": {"dpo_weights": "order"},
            "margin": {"dpo_weights": "margin"},
            "first": {"dpo_weights": "paper", "dpo_order_steps": 1},
            "then": {"dpo_weights": "paper", "dpo_order_steps": 0},
        }.items()
    }
    for paper, alone in (("first", "order"), ("then", "margin")):
        assert all(torch.equal(found[paper][name], step) for name, step in found[alone].items())
    assert any(not torch.equal(found["order"][n], step) for n, step in found["margin"].items())


def test_before_training_margins_are_exactly_0(tmp_path: Path) -> None:
    """Bit for bit, in float32: the model has no preference beyond that of the reference."""
    pipe = pipeline()
    run = plain_run(pipe, bright(pipe), tmp_path, pairs=PAIRS, **DPO)
    with torch.no_grad():
        for name, weight in run.policies.trained.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    metrics = dpo_step(run, 0)
    assert (metrics["margin"], metrics["accuracy"]) == (0, 0)
    assert metrics["loss"] == pytest.approx(math.log(2))
    assert metrics["grad_norm"] > 0


def test_it_learns_what_it_is_shown_and_resumes(tmp_path: Path) -> None:
    """The groups of a file; one of them is all ties."""
    for place, pair in enumerate(PAIRS[:1]):
        for name, image in (("w", pair.better), ("l", pair.worse)):
            image.save(tmp_path / f"{place}{name}.png")  # type: ignore[attr-defined] # PIL's
    (tmp_path / "groups.jsonl").write_text(
        '{"prompt": "a dog", "images": ["0w.png", "0l.png"], "ranks": [1, 2]}\n'
        '{"prompt": "a tie", "images": ["0w.png", "0l.png"], "ranks": [1, 1]}\n'
    )
    groups = list(read_groups(tmp_path / "groups.jsonl"))
    settings = {"method": "dpo", "batch_size": 2, "rank": 0, "learning_rate": 1e-2,
                "dpo_beta": 2000.0, "checkpoint_every": 6, "sample_every": 50}  # fmt: skip
    for steps in (6, 12):
        pipe = pipeline()
        finetune(
            pipe, None, bright(pipe), quick(**settings, steps=steps), groups=groups,
            out=tmp_path / "run", progress=False,
        )  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    margins = [row["margin"] for row in map(json.loads, lines) if "accuracy" in row]
    assert len(margins) == 12
    assert sum(margins[6:]) / 6 > 0.1
    other = pipeline()
    with pytest.raises(ValueError, match=r"groups was '2 groups, .*', is '1 groups, "):
        finetune(
            other, ["a dog", "a tie"], bright(other), quick(**settings, steps=12),
            groups=groups[:1], out=tmp_path / "run", progress=False,
        )  # fmt: skip


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    pipe = pipeline()
    group = RankedGroup("a", (picture(0), picture(1)), (1, 2))
    with pytest.raises(ValueError, match="method='dpo' trains on ranked pictures"):
        finetune(pipe, PROMPTS, bright(pipe), quick(method="dpo"), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="method='nft' does not train on groups"):
        finetune(
            pipe, PROMPTS, bright(pipe), quick(method="nft", pictures_per_prompt=2),
            groups=[group], out=tmp_path, progress=False,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
