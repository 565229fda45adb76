"""Candidates of tiny pipelines of every kind: a seed each, whatever the batch."""

import inspect

import pytest
import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
)
from helpers.candidates import PROMPT, alone, apart, make
from helpers.tiny_pipelines import KINDS, SHORT, build, often_or_slow
from transformers import T5EncoderModel

from stablepref.integrations.best_of_n.candidates import check_pipeline, generate


@pytest.mark.parametrize("kind", often_or_slow(KINDS, "sd", "sdxl", "flux"))
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
