"""Candidates of tiny pipelines of every kind: a seed each, whatever the batch."""

import inspect
import threading
from collections.abc import Sequence

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from helpers.places import DOCS
from helpers.tiny_pipelines import KINDS, SHORT, build, sd3_transformer, unet, vae
from PIL import Image
from transformers import T5EncoderModel

from stablepref.integrations.best_of_n import candidates, grouping
from stablepref.integrations.best_of_n.candidates import check_pipeline, generate, generate_all
from stablepref.integrations.best_of_n.grouping import Wanted, batch_size_for, in_groups
from stablepref.integrations.best_of_n.making import Generated, Unmade, may_run_twice

PROMPT = "a red circle"
DOCS_PAGE = (DOCS / "best_of_n.md").read_text(encoding="utf-8")


def make(
    pipe: DiffusionPipeline,
    indices: Sequence[int],
    *,
    batch_size: int | None,
    seed: int = 7,
    **arguments: object,
) -> list[Image.Image]:
    """All candidates, checked to come in order."""
    batches = list(
        generate(pipe, PROMPT, indices, seed=seed, batch_size=batch_size, arguments=arguments)
    )
    made = [one for batch in batches for one in batch]
    assert [one.index for one in made] == list(indices)
    return [one.image for one in made]


def alone(pipe: DiffusionPipeline, seed: int, **arguments: object) -> Image.Image:
    """The pipeline itself, called as its documentation does."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    return pipe(PROMPT, generator=generator, **arguments).images[0]


def apart(a: Image.Image, b: Image.Image) -> int:
    """Largest difference in 8-bit levels."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max())


@pytest.mark.parametrize("kind", KINDS)
def test_any_candidate_can_be_made_again_alone(kind: str) -> None:
    pipe, arguments = build(kind)
    images = make(pipe, range(5), batch_size=2, **arguments)
    again = make(pipe, range(5), batch_size=2, **arguments)
    for i, image in enumerate(images):
        assert image.size == (32, 32)
        assert apart(image, again[i]) == 0  # bitwise at equal batch composition
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1
    assert apart(images[0], images[1]) > 10
    rest = make(pipe, [3, 1], batch_size=8, **arguments)
    assert apart(rest[0], images[3]) <= 1
    assert apart(rest[1], images[1]) <= 1


@pytest.mark.parametrize(
    ("scheduler", "extra"),
    [
        (EulerAncestralDiscreteScheduler, {}),
        (DDPMScheduler, {}),
        (LCMScheduler, {}),
        (None, {"eta": 1.0}),
    ],
)
def test_noise_of_stochastic_schedulers_too(
    scheduler: type[DDPMScheduler] | None, extra: dict[str, object]
) -> None:
    pipe, arguments = build("sd")
    arguments |= {"num_inference_steps": 3, **extra}
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    images = make(pipe, range(4), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1
    for i, image in enumerate(make(pipe, range(4), batch_size=3, **arguments)):
        assert apart(image, images[i]) == 0


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_texts_are_encoded_once(kind: str) -> None:
    pipe, arguments = build(kind)
    calls: dict[str, int] = {}
    encoders = {n: part for n, part in pipe.components.items() if n.startswith("text_encoder")}
    forwards = {name: encoder.forward for name, encoder in encoders.items()}
    for name, encoder in encoders.items():
        is_t5 = isinstance(encoder, T5EncoderModel)
        inner = encoder.encoder.final_layer_norm if is_t5 else encoder.get_input_embeddings()
        calls[name] = 0

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        inner.register_forward_hook(count)
    make(pipe, range(5), batch_size=2, **arguments)
    # The prompt; and for guidance an empty one, in whose place SDXL has zeros and Flux nothing.
    texts = 1 if kind in ("flux", "sdxl") else 2
    assert calls == dict.fromkeys(encoders, texts)
    make(pipe, range(1), batch_size=1, **arguments)  # nothing is remembered beyond the call
    assert calls == dict.fromkeys(encoders, 2 * texts)
    for name, encoder in encoders.items():
        assert encoder.forward == forwards[name]
        assert "forward" not in vars(encoder)


PICTURE = Image.effect_noise((32, 32), 80).convert("RGB")
MASK = Image.new("L", (32, 32), 0)
MASK.paste(255, (8, 8, 24, 24))
MASKED = {"mask_image": MASK}
CONTROLLED = {"control_image": PICTURE.rotate(90)}
# Each that docs/best_of_n.md names, made of the parts of a tiny text-to-image pipeline.
WITH_PICTURES = [
    ("StableDiffusionImg2ImgPipeline", "sd", {}),
    ("StableDiffusionInpaintPipeline", "sd", MASKED),
    ("StableDiffusionControlNetPipeline", "sd", {}),
    ("StableDiffusionControlNetImg2ImgPipeline", "sd", CONTROLLED),
    ("StableDiffusionControlNetInpaintPipeline", "sd", {**MASKED, **CONTROLLED}),
    ("StableDiffusionXLImg2ImgPipeline", "sdxl", {}),
    ("StableDiffusionXLInpaintPipeline", "sdxl", MASKED),
    ("StableDiffusionXLControlNetPipeline", "sdxl", {}),
    ("StableDiffusionXLControlNetImg2ImgPipeline", "sdxl", CONTROLLED),
    ("StableDiffusionXLControlNetInpaintPipeline", "sdxl", {**MASKED, **CONTROLLED}),
    ("StableDiffusion3Img2ImgPipeline", "sd3", {}),
    ("StableDiffusion3InpaintPipeline", "sd3", MASKED),
    ("FluxImg2ImgPipeline", "flux", {}),
    ("FluxInpaintPipeline", "flux", MASKED),
    ("LatentConsistencyModelImg2ImgPipeline", "sd", {"original_inference_steps": 20}),
]


def with_pictures(name: str, kind: str) -> tuple[DiffusionPipeline, dict[str, object]]:
    """A tiny pipeline that takes pictures, and the arguments of a short run."""
    base, arguments = build(kind)
    parts = dict(base.components)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if "ControlNet" in name:
            parts["controlnet"] = controlnet(kind)
        if name == "StableDiffusion3InpaintPipeline":  # for 16 channels only
            parts |= {
                "vae": vae(16, shift_factor=0.06, scaling_factor=1.5).eval(),
                "transformer": sd3_transformer(16).eval(),
            }
        if name.startswith("Latent"):  # its guidance is an input
            config = {"cross_attention_dim": 32, "attention_head_dim": 4}
            parts["unet"] = unet(**config, time_cond_proj_dim=32).eval()
            parts["scheduler"] = LCMScheduler(beta_schedule="scaled_linear")
    made = getattr(diffusers, name)
    takes = inspect.signature(made.__init__).parameters
    parts = {part: value for part, value in parts.items() if part in takes}
    if "requires_safety_checker" in takes:
        parts["requires_safety_checker"] = False
    call = inspect.signature(made.__call__).parameters
    wanted = {**arguments, "image": PICTURE, "num_inference_steps": 4, "strength": 0.7}
    pipe = made(**parts)
    return pipe, {argument: value for argument, value in wanted.items() if argument in call}


def controlnet(kind: str) -> ControlNetModel:
    """A ControlNet whose weights, which are zero before training, are not."""
    xl = {
        "cross_attention_dim": 64,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 1),
        "projection_class_embeddings_input_dim": 80,
    }
    control = ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(8,),
        norm_num_groups=4,
        **(xl if kind == "sdxl" else {"cross_attention_dim": 32, "attention_head_dim": 4}),
    )
    for block in [*control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out]:
        torch.nn.init.normal_(block.weight)
    # Its pictures are halved as by this VAE, not by eight.
    control.controlnet_cond_embedding.conv_in.stride = (2, 2)
    return control.eval()


@pytest.mark.parametrize(("name", "kind", "extra"), WITH_PICTURES)
def test_a_picture_given_to_all_is_encoded_with_the_noise_of_each(
    name: str, kind: str, extra: dict[str, object]
) -> None:
    pipe, arguments = with_pictures(name, kind)
    arguments |= extra
    images = make(pipe, range(3), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1
    assert apart(images[0], images[1]) > 0
    other = make(pipe, range(1), batch_size=1, **{**arguments, "image": PICTURE.rotate(90)})
    assert apart(other[0], images[0]) > 0
    assert type(pipe).__name__ in DOCS_PAGE


@pytest.mark.parametrize("form", ["list", "array", "tensor", "batch of one"])
def test_a_picture_in_any_form(form: str) -> None:
    pipe, arguments = with_pictures("StableDiffusionInpaintPipeline", "sd")
    pixels = np.asarray(PICTURE, dtype=np.float32) / 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    given = {"list": [PICTURE], "array": pixels, "tensor": tensor, "batch of one": tensor[None]}
    arguments |= {**MASKED, "image": given[form]}
    images = make(pipe, range(3), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1


class Foreign(StableDiffusionInpaintPipeline):
    """A pipeline that takes pictures, and that nothing is known of."""

    @torch.no_grad()
    def __call__(self, prompt: object, image: object, mask_image: object, **rest: object) -> object:
        given = {"prompt": prompt, "image": image, "mask_image": mask_image}
        return super().__call__(**given, **rest)


def test_pictures_of_an_unknown_pipeline_are_made_one_at_a_time() -> None:
    base, arguments = with_pictures("StableDiffusionInpaintPipeline", "sd")
    pipe = Foreign(**base.components, requires_safety_checker=False)
    arguments |= MASKED
    batches = generate(pipe, PROMPT, range(3), seed=7, batch_size=3, arguments=arguments)
    for i, (made,) in enumerate(batches):
        assert apart(made.image, alone(base, 7 + i, **arguments)) <= 1
    assert i == 2


def test_cropped_inpainting_takes_no_list_and_is_made_one_at_a_time() -> None:
    pipe, arguments = with_pictures("StableDiffusionInpaintPipeline", "sd")
    arguments |= {**MASKED, "padding_mask_crop": 4}
    images = make(pipe, range(2), batch_size=2, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1


def test_several_controlnets_have_a_picture_each() -> None:
    base, arguments = with_pictures("StableDiffusionControlNetPipeline", "sd")
    parts = {**base.components, "controlnet": [controlnet("sd"), controlnet("sd")]}
    pipe = StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
    arguments |= {"image": [PICTURE, PICTURE.rotate(90)]}
    images = make(pipe, range(3), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = build("sd")
    expected = make(pipe, range(9), batch_size=2, **arguments)
    asked = []
    call = type(pipe).__call__

    def limited(self: DiffusionPipeline, *args: object, **kwargs: object) -> object:
        asked.append(kwargs["num_images_per_prompt"])
        if asked[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return call(self, *args, **kwargs)

    limited.__signature__ = inspect.signature(call)  # type: ignore[attr-defined] # a function's
    monkeypatch.setattr(type(pipe), "__call__", limited)
    images = make(pipe, range(9), batch_size=8, **arguments)
    assert asked == [8, 4, 2, 2, 2, 2, 1]
    assert [apart(a, b) for a, b in zip(images, expected, strict=True)] == [0] * 9


def test_other_errors_are_not_swallowed() -> None:
    pipe, arguments = build("sd")
    with pytest.raises(ValueError, match="divisible by 8"):
        make(pipe, range(4), batch_size=4, **{**arguments, "height": 33})


def test_the_pipeline_is_left_as_it_was() -> None:
    pipe, arguments = build("sd")
    pipe.set_progress_bar_config(desc="mine")
    scheduler = pipe.scheduler
    make(pipe, range(2), batch_size=None, **arguments)
    assert pipe._progress_bar_config == {"desc": "mine"}
    assert pipe.scheduler is scheduler


def test_blanked_pictures_have_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the safety checker of Stable Diffusion does: a flag, and black in place of the picture."""
    pipe, arguments = build("sd")

    def flag_first(images: torch.Tensor, *_: object) -> tuple[torch.Tensor, list[bool]]:
        flags = [i == 0 for i in range(len(images))]
        images[0] = 0
        return images, flags

    monkeypatch.setattr(pipe, "run_safety_checker", flag_first)
    ((first, second),) = generate(pipe, PROMPT, range(2), seed=0, batch_size=2, arguments=arguments)
    assert first.fault is not None
    assert "safety checker" in first.fault
    assert second.fault is None
    monkeypatch.setattr(pipe, "run_safety_checker", lambda images, *_: (images * torch.nan, None))
    ((black,),) = generate(pipe, PROMPT, range(1), seed=0, batch_size=1, arguments=arguments)
    assert black.fault is not None
    assert "overflow in half precision" in black.fault


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"generator": None}, "pass seed="),
        ({"latents": None}, "noise of its own"),
        ({"num_images_per_prompt": 4}, "pass n= and batch_size="),
        ({"prompt_embeds": None}, "prompt as text"),
        ({"output_type": "latent"}, "'latent'; leave it out"),
        ({"steps": 4}, "takes no argument 'steps'; it takes: .*num_inference_steps"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, object], says: str) -> None:
    pipe, _ = build("sd")
    check_pipeline(pipe, SHORT)
    with pytest.raises(ValueError, match=says):
        check_pipeline(pipe, arguments)


def test_what_is_no_text_to_image_pipeline() -> None:
    pipe, _ = build("sd")
    with pytest.raises(TypeError, match="DDPMPipeline takes no text prompt"):
        check_pipeline(DDPMPipeline(pipe.unet, DDPMScheduler()), {})
    with pytest.raises(TypeError, match="pipe is a str"):
        check_pipeline("stable-diffusion", {})


def test_a_negative_prompt_goes_with_a_picture_for_all() -> None:
    """The prompts become a list there, and pipelines want the negative ones to be one, too."""
    pipe, _ = build("sd")
    parts = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    call = {"image": Image.new("RGB", (64, 64), "red"), "num_inference_steps": 2,
            "negative_prompt": "a dog", "guidance_scale": 4.0}  # fmt: skip
    together = make(parts, [0, 1], batch_size=2, **call)
    for index, image in enumerate(together):
        assert apart(make(parts, [index], batch_size=1, **call)[0], image) <= 1


def wanted_of(prompts: Sequence[str], pictures: int) -> list[Wanted]:
    """So many pictures of each prompt, with seeds from 7."""
    return [
        Wanted(place * pictures + i, prompt, 7 + place * pictures + i)
        for place, prompt in enumerate(prompts)
        for i in range(pictures)
    ]


MIXED = ["a red circle", "a dog", "any green cat left of a blue square", "a dog"]


@pytest.mark.parametrize("kind", [*KINDS, "qwen", "lumina2"])
def test_prompts_share_batches_and_every_picture_is_that_of_its_prompt_alone(kind: str) -> None:
    pipe, arguments = build(kind)
    wanted = wanted_of(MIXED, 2)
    batches = list(generate_all(pipe, wanted, batch_size=3, arguments=arguments))
    again = list(generate_all(pipe, wanted, batch_size=3, arguments=arguments))
    order = [[one.index for one in batch] for batch in batches]
    # Qwen-Image pads to the longest: batches hold prompts of equally many tokens.
    by_length = [[0, 1], [2, 3, 6], [7], [4, 5]]
    assert order == (by_length if kind == "qwen" else [[0, 1, 2], [3, 4, 5], [6, 7]])
    for batch, other in zip(batches, again, strict=True):
        for one, same in zip(batch, other, strict=True):
            assert isinstance(one, Generated)
            assert isinstance(same, Generated)
            assert apart(one.image, same.image) == 0  # bit for bit at equal composition
    pipe.set_progress_bar_config(disable=True)
    made = {
        one.index: one.image for batch in batches for one in batch if isinstance(one, Generated)
    }
    for one in wanted:
        generator = torch.Generator().manual_seed(one.seed)
        expected = pipe(one.prompt, generator=generator, **arguments).images[0]
        assert apart(made[one.index], expected) <= 1
    assert apart(made[0], made[2]) > 1


def test_a_negative_prompt_goes_with_several_prompts() -> None:
    pipe, arguments = build("sd")
    call = {**arguments, "negative_prompt": "a cat", "guidance_scale": 4.0}
    (batch,) = generate_all(pipe, wanted_of(MIXED[:2], 1), batch_size=2, arguments=call)
    for i, one in enumerate(batch):
        assert isinstance(one, Generated)
        generator = torch.Generator().manual_seed(7 + i)
        assert apart(one.image, pipe(MIXED[i], generator=generator, **call).images[0]) <= 1


class Renamed(StableDiffusionPipeline):
    """As a pipeline of diffusers without a row, which may pad prompts to the longest of a batch."""

    @torch.no_grad()
    def __call__(self, prompt: object, **rest: object) -> object:
        return super().__call__(prompt, **rest)


def test_what_may_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, _ = build("sd")
    wanted = wanted_of(MIXED, 1)

    def groups(pipe: DiffusionPipeline, **arguments: object) -> list[list[int]]:
        return [[one.index for one in group] for group in in_groups(pipe, wanted, arguments)]

    everything, each = [[0, 1, 2, 3]], [[0], [1, 3], [2]]
    assert groups(pipe, num_inference_steps=2, negative_prompt="a cat") == everything
    assert groups(pipe, timesteps=[9, 1], cross_attention_kwargs={"scale": 0.5}) == everything
    assert groups(pipe, callback_on_step_end=lambda *_: {}) == each
    assert groups(pipe, ip_adapter_image=PICTURE) == each
    assert groups(pipe, negative_prompt=["a cat"]) == each
    unknown = Renamed(**pipe.components, requires_safety_checker=False)
    assert groups(unknown) == each  # of a user: nothing is known of it
    monkeypatch.setattr(Renamed, "__module__", "diffusers.pipelines.other")
    words = [len(pipe.tokenizer(prompt)["input_ids"]) for prompt in MIXED]
    assert len({words[0], words[1], words[2]}) == 3
    assert groups(unknown) == each  # by their tokens, of which only equal prompts have as many
    wanted[0] = Wanted(0, "a cat", 7)
    assert groups(unknown) == [[0, 1, 3], [2]]


def test_a_batch_of_several_prompts_that_fails_is_made_prompt_by_prompt() -> None:
    pipe, arguments = build("sd")
    call = pipe.encode_prompt

    def picky(prompt: object, *rest: object, **more: object) -> object:
        if "a dog" in (prompt if isinstance(prompt, list) else [prompt]):
            raise KeyError("dog")
        return call(prompt, *rest, **more)

    pipe.encode_prompt = picky
    wanted = wanted_of(MIXED[:3], 2)
    made = list(generate_all(pipe, wanted, batch_size=6, arguments=arguments, keep_going=True))
    assert [type(one) for one in made[0]] == 2 * [Generated] + 2 * [Unmade] + 2 * [Generated]
    del pipe.encode_prompt
    for one, want in zip(made[0], wanted, strict=True):
        assert one.index == want.index
        if isinstance(one, Generated):
            generator = torch.Generator().manual_seed(want.seed)
            expected = pipe(want.prompt, generator=generator, **arguments).images[0]
            assert apart(one.image, expected) <= 1
        else:
            assert isinstance(one.error, KeyError)
    pipe.encode_prompt = picky
    with pytest.raises(KeyError, match="dog"):
        list(generate_all(pipe, wanted, batch_size=6, arguments=arguments))


def test_streams_side_by_side_make_what_one_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = build("sd")
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    call = {**arguments, "num_inference_steps": 4}
    wanted = wanted_of(MIXED, 4)
    one_by_one = list(generate_all(pipe, wanted, batch_size=2, arguments=call))
    threads = set()
    run = candidates._call

    def seen(one: object, *rest: object) -> object:
        assert one is not pipe
        threads.add(threading.get_ident())
        barrier.wait(60)  # both are within a call, or this fails
        return run(one, *rest)  # type: ignore[arg-type] # handed on

    barrier = threading.Barrier(2)
    monkeypatch.setattr(candidates, "streams_for", lambda *_: 9)
    monkeypatch.setattr(candidates, "_call", seen)
    scheduler = pipe.scheduler
    both = list(generate_all(pipe, wanted, batch_size=2, arguments=call))
    assert len(threads) == 2
    assert pipe.scheduler is scheduler
    for batch, other in zip(one_by_one, both, strict=True):
        for one, same in zip(batch, other, strict=True):
            assert isinstance(one, Generated)
            assert isinstance(same, Generated)
            assert one.index == same.index
            assert apart(one.image, same.image) == 0


def test_modules_with_a_state_do_not_run_twice_at_once() -> None:
    pipe, _ = build("sd")
    assert may_run_twice(pipe, {"num_inference_steps": 2})
    assert not may_run_twice(pipe, {"cross_attention_kwargs": {"scale": 0.5}})
    assert not may_run_twice(pipe, {"callback_on_step_end": print})
    with torch.autocast("cpu"):
        assert not may_run_twice(pipe, {})
    pipe.unet.mid_block._diffusers_hook = object()
    assert not may_run_twice(pipe, {})


def test_the_batch_follows_the_size_of_the_pictures_and_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, _ = build("sd")
    sizes = {side: batch_size_for(pipe, {"height": side, "width": side}, None)
             for side in (64, 96, 128, 512)}  # fmt: skip
    assert sizes == {64: 20, 96: 8, 128: 5, 512: 4}
    own = pipe.unet.config.sample_size * pipe.vae_scale_factor
    assert batch_size_for(pipe, {}, None) == batch_size_for(
        pipe, {"height": own, "width": own}, None
    )
    assert batch_size_for(pipe, {"height": 512, "width": 512}, 7) == 7
    # 512 x 512 pixels, 8 channels of this decoder, 8 tensors of 4 bytes: 67 MB each.
    one = 512 * 512 * pipe.vae.config.block_out_channels[0] * 8 * 4
    monkeypatch.setattr(grouping, "_free_bytes", lambda _: 7 * one)
    assert batch_size_for(pipe, {"height": 512, "width": 512}, None) == 3
    monkeypatch.setattr(grouping, "_free_bytes", lambda _: 0)
    assert batch_size_for(pipe, {"height": 512, "width": 512}, None) == 1
