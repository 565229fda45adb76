"""Candidates of pipelines that take pictures beside the prompt."""

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from helpers.candidates import PROMPT, alone, apart, make
from helpers.pictured import PICTURE, controlnet, with_pictures
from helpers.places import DOCS
from helpers.tiny_pipelines import build
from PIL import Image

from stablepref.integrations.best_of_n.candidates import generate

DOCS_PAGE = (DOCS / "best_of_n.md").read_text(encoding="utf-8")
MASK = Image.new("L", (32, 32), 0)
MASK.paste(255, (8, 8, 24, 24))
MASKED = {"mask_image": MASK}
CONTROLLED = {"control_image": PICTURE.rotate(90)}
# Each that docs/best_of_n.md names, made of the parts of a tiny text-to-image pipeline; those whose
# way through our code another one has are tried with `-m slow`.
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


USUAL = {
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusion3InpaintPipeline",
    "FluxImg2ImgPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
}


def test_all_are_documented() -> None:
    for name, *_ in WITH_PICTURES:
        assert name in DOCS_PAGE


@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [
        pytest.param(*one, marks=[] if one[0] in USUAL else pytest.mark.slow)
        for one in WITH_PICTURES
    ],
)
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


def test_a_negative_prompt_goes_with_a_picture_for_all() -> None:
    """The prompts become a list there, and pipelines want the negative ones to be one, too."""
    pipe, _ = build("sd")
    parts = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    call = {"image": Image.new("RGB", (64, 64), "red"), "num_inference_steps": 2,
            "negative_prompt": "a dog", "guidance_scale": 4.0}  # fmt: skip
    together = make(parts, [0, 1], batch_size=2, **call)
    for index, image in enumerate(together):
        assert apart(make(parts, [index], batch_size=1, **call)[0], image) <= 1
