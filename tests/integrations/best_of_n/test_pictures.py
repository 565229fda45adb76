"""Candidates of pipelines that take pictures beside the prompt."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from helpers.candidates import PROMPT, alone, apart, make
from helpers.pictured import PICTURE, with_pictures
from helpers.places import DOCS
from helpers.tiny_controlnets import controlnet
from helpers.tiny_pipelines import build, often_or_slow
from PIL import Image
from torch import Tensor

from stablepref.integrations.best_of_n.candidates import generate

DOCS_PAGE = (DOCS / "best_of_n.md").read_text(encoding="utf-8")
# Each that docs/best_of_n.md names, made of the parts of a tiny text-to-image pipeline; those whose
# way through our code another one has are tried with `-m slow`.
WITH_PICTURES = [
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3InpaintPipeline",
    "StableDiffusion3ControlNetPipeline",
    "StableDiffusion3ControlNetInpaintingPipeline",
    "FluxImg2ImgPipeline",
    "FluxInpaintPipeline",
    "FluxControlNetPipeline",
    "FluxControlNetImg2ImgPipeline",
    "FluxControlNetInpaintPipeline",
    "QwenImageControlNetPipeline",
    "SanaControlNetPipeline",
    "ZImageControlNetPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
]
UNSEEDED = ["StableDiffusion3ControlNetPipeline", "StableDiffusion3ControlNetInpaintingPipeline"]
USUAL = {
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusion3InpaintPipeline",
    "FluxControlNetImg2ImgPipeline",
    "QwenImageControlNetPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
}


def test_all_are_documented() -> None:
    for name in WITH_PICTURES:
        assert f"`{name}`" in DOCS_PAGE


@pytest.mark.parametrize("name", often_or_slow(WITH_PICTURES, *USUAL))
def test_a_picture_given_to_all_is_encoded_with_the_noise_of_each(name: str) -> None:
    pipe, arguments = with_pictures(name)
    if name in UNSEEDED:
        without_noise(pipe.vae)
    images = make(pipe, range(3), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1
    assert apart(images[0], images[1]) > 0
    for given in {"image", "control_image"} & set(arguments):
        other = make(pipe, range(1), batch_size=1, **{**arguments, given: PICTURE.rotate(180)})
        assert apart(other[0], images[0]) > 0


def without_noise(vae: AutoencoderKL) -> None:
    """Let it be sure of what it encodes."""
    spread = slice(vae.config.latent_channels, None)
    torch.nn.init.zeros_(vae.quant_conv.weight[spread])
    torch.nn.init.constant_(vae.quant_conv.bias[spread], -30)


@pytest.mark.parametrize("name", often_or_slow(UNSEEDED, UNSEEDED[0]))
def test_noise_of_a_picture_that_pipelines_do_not_seed_is_that_of_the_candidates(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, arguments = with_pictures(name)
    assert apart(alone(pipe, 7, **arguments), alone(pipe, 7, **arguments)) > 0
    images = make(pipe, range(3), batch_size=3, **arguments)
    assert apart(make(pipe, [1], batch_size=1, **arguments)[0], images[1]) <= 1
    seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(8)))
    generator = torch.Generator().manual_seed(seed)

    def sample(self: DiagonalGaussianDistribution, given: torch.Generator | None = None) -> Tensor:
        assert given is None
        rows = [torch.randn(row[None].shape, generator=generator) for row in self.mean]
        return self.mean + self.std * torch.cat(rows)

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", sample)
    assert apart(alone(pipe, 8, **arguments), images[1]) <= 1


@pytest.mark.parametrize(
    "name", ["StableDiffusionControlNetInpaintPipeline", "FluxControlNetImg2ImgPipeline"]
)
def test_a_list_of_one_picture_to_begin_with_is_that_picture(name: str) -> None:
    """Beside a ControlNet, whose own picture is another argument."""
    pipe, arguments = with_pictures(name)
    plain = make(pipe, range(3), batch_size=3, **arguments)
    arguments |= {"image": [arguments["image"]]}
    for size in (1, 3):
        listed = make(pipe, range(3), batch_size=size, **arguments)
        assert all(apart(one, image) <= 1 for one, image in zip(listed, plain, strict=True))


@pytest.mark.parametrize("form", ["list", "array", "tensor", "batch of one"])
def test_a_picture_in_any_form(form: str) -> None:
    pipe, arguments = with_pictures("StableDiffusionInpaintPipeline")
    pixels = np.asarray(PICTURE, dtype=np.float32) / 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    given = {"list": [PICTURE], "array": pixels, "tensor": tensor, "batch of one": tensor[None]}
    arguments |= {"image": given[form]}
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
    base, arguments = with_pictures("StableDiffusionInpaintPipeline")
    pipe = Foreign(**base.components, requires_safety_checker=False)
    batches = generate(pipe, PROMPT, range(3), seed=7, batch_size=3, arguments=arguments)
    for i, (made,) in enumerate(batches):
        assert apart(made.image, alone(base, 7 + i, **arguments)) <= 1
    assert i == 2


def test_cropped_inpainting_takes_no_list_and_is_made_one_at_a_time() -> None:
    pipe, arguments = with_pictures("StableDiffusionInpaintPipeline")
    arguments |= {"padding_mask_crop": 4}
    images = make(pipe, range(2), batch_size=2, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1


@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [("StableDiffusionControlNetPipeline", "sd", "image"),
     ("FluxControlNetPipeline", "flux", "control_image")],
)  # fmt: skip
def test_several_controlnets_have_a_picture_each(name: str, kind: str, given: str) -> None:
    base, arguments = with_pictures(name)
    nets = [controlnet(kind), controlnet(kind)]
    pipe = type(base).from_pipe(base, controlnet=nets)
    arguments |= {given: [PICTURE, PICTURE.rotate(90)], "controlnet_conditioning_scale": [1.0, 0.5]}
    images = make(pipe, range(3), batch_size=3, **arguments)
    for i, image in enumerate(images):
        assert apart(image, alone(pipe, 7 + i, **arguments)) <= 1


@pytest.mark.parametrize("form", ["list", "array", "tensor", "signed"])
def test_a_control_picture_in_any_form_is_what_the_pipeline_makes_of_it(form: str) -> None:
    """Of tensors these pipelines expect what others make of pictures first: from -1 to 1."""
    pipe, arguments = with_pictures("FluxControlNetPipeline")
    pixels = np.asarray(PICTURE, dtype=np.float32) / 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    given = {"list": [PICTURE], "array": pixels, "tensor": tensor, "signed": 2 * tensor - 1}
    arguments |= {"control_image": given[form]}
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
