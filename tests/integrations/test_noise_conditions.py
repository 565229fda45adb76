"""Noise optimisation with pictures as conditions: each is that of its prompt and its ControlNet."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.brightness import Brightness
from helpers.pictured import PICTURE, with_pictures
from helpers.tiny_controlnets import controlnet
from torch import Tensor

from stablepref.integrations.noise_optimization import optimize_noise

CONTROLLED = "StableDiffusionControlNetPipeline"
STRONG = 100.0
"""A ControlNet of random weights hardly changes a picture otherwise."""
SAME = 1e-4


class Ramp(Brightness):
    """What is light on the left counts for a picture, and on the right against it."""

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        ramp = torch.linspace(1, -1, inputs.shape[-1])
        return (inputs * ramp * ramp[:, None].exp()).mean(dim=(2, 3))


def controlled(name: str) -> tuple[DiffusionPipeline, dict[str, Any]]:
    pipe, arguments = with_pictures(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**arguments, "num_inference_steps": 1}


def assert_same(one: Tensor, other: Tensor) -> None:
    """As far as batches of other sizes round alike."""
    torch.testing.assert_close(one, other, rtol=0, atol=SAME)


@pytest.mark.parametrize("form", ["list", "tensor", "array"])
def test_each_picture_may_have_a_condition_of_its_own(form: str) -> None:
    pipe, arguments = controlled(CONTROLLED)
    pictures = [PICTURE, PICTURE.rotate(90)]
    stack = np.stack([np.asarray(one, dtype=np.float32) / 255 for one in pictures])
    given = {
        "list": pictures,
        "array": stack,
        "tensor": torch.from_numpy(stack).permute(0, 3, 1, 2),
    }
    call = {**arguments, "controlnet_conditioning_scale": STRONG}
    both = optimize_noise(
        pipe, ["a cat"] * 2, Ramp(1e3), iterations=2, **{**call, "image": given[form]}
    )
    for place, picture in enumerate(pictures):
        own, other = (
            optimize_noise(
                pipe, "a cat", Ramp(1e3), iterations=2, seed=place, **{**call, "image": one}
            )
            for one in (picture, picture.rotate(180))
        )
        assert_same(both.rewards[:, place], own.rewards[:, 0])
        assert (other.rewards - own.rewards).abs().max() > 5 * SAME, "it sees the picture"


@pytest.mark.parametrize(
    ("name", "kind", "given", "by_net"),
    [
        (CONTROLLED, "sd", "image", False),
        ("FluxControlNetPipeline", "flux", "control_image", True),
    ],
)
@pytest.mark.parametrize("prompts", [2, 3])
def test_several_controlnets_have_a_picture_each(
    name: str, kind: str, given: str, by_net: bool, prompts: int
) -> None:
    """A list as long as the prompts is of the ControlNets; of each prompt there are lists in it.

    Stable Diffusion's has the ControlNets' pictures of each prompt, and FLUX's the prompts' of each
    ControlNet.
    """
    base, arguments = controlled(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [controlnet(kind), controlnet(kind)]
    pipe = type(base).from_pipe(base, controlnet=nets)
    pictures = [PICTURE, PICTURE.rotate(90)]
    turned = [[one.rotate(180 * place) for one in pictures] for place in range(prompts)]
    call = {**arguments, "controlnet_conditioning_scale": [STRONG, STRONG / 2]}
    nested = [list(of_net) for of_net in zip(*turned, strict=True)] if by_net else turned
    for value, of_each in ((pictures, [pictures] * prompts), (nested, turned)):
        together = optimize_noise(
            pipe, ["a cat"] * prompts, Ramp(1e3), iterations=1, **{**call, given: value}
        )
        for place, own in enumerate(of_each):
            alone = optimize_noise(
                pipe, "a cat", Ramp(1e3), iterations=1, seed=place, **{**call, given: own}
            )
            assert_same(together.rewards[:, place], alone.rewards[:, 0])
            swapped = optimize_noise(
                pipe, "a cat", Ramp(1e3), iterations=1, seed=place, **{**call, given: own[::-1]}
            )
            assert (swapped.rewards - alone.rewards).abs().max() > 5 * SAME, (
                "it sees which is whose"
            )
