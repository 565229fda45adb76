"""What is known of each pipeline of diffusers: one row for each, in one table.

A pipeline that is not in the table can still make candidates for best-of-n. Guidance, pruning,
noise optimisation and fine-tuning need a row, whose claims are tested for the rows that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from inspect import getattr_static, signature
from typing import TYPE_CHECKING, Any, Final, Literal, final

from stablepref.runtime.registry import Registry

from .packing import encode_flux, encode_flux2, encode_qwen, flux2_call_latents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """One pipeline class, and its subclasses that do not override `__call__`.

    Attributes:
        denoiser: The component that predicts noise, velocity or flow; its first argument is the
            latents.
        conditions: Where the denoiser takes what it is conditioned on: for the name of each tensor
            that the pipeline's call holds, with a row for each picture (under guidance two), the
            denoiser's argument, or `argument.key` for an entry of a dictionary. The names are those
            that `callback_on_step_end_tensor_inputs` knows. Empty where a callback does not reach
            all such tensors: then guidance calls the pipeline (`RewardGuidance.draw`) and is no
            callback.
        attention: The pipeline's attribute with arguments of attention processors, which the
            denoiser takes under the same name; empty if there are none.
        lora_targets: Layers that get LoRA matrices.
        guidance: The call's argument for the scale of guidance.
        unguided: Its value for no classifier-free guidance; None where the scale is an input of the
            denoiser, which it always has.
        negative_prompt: What guidance leads away from where nothing is given, for pipelines that do
            not guide without; None for what the pipeline takes then.
        arguments: Further ones of the call, where pictures are made for training.
        fixed_length: Whether a prompt is padded to one length, whatever else is in its batch.
        packed: Whether the latents in the pipeline's loop are not those that its VAE decodes.
        encode: For packed ones those of pictures `(batch, 3, H, W)` in [0, 1]; None where training
            on given pictures is not possible.
        call_latents: What the call takes as `latents=`, of all that `prepare_latents` returns, for
            pipelines that take another form than their loop has; else None.
        gives_sigmas: Whether the call gives the scheduler the noise levels of its steps.
        backpropagates: Whether gradients pass through the whole call, back to the initial noise.
        pictures: Arguments of the call with a picture for all candidates that becomes a list, one
            for each: of a single one, encoded with noise, all get the noise of the first.
        repeated: Arguments with a picture that the call repeats for all candidates before it is
            encoded, so that each has noise of its own.
        picture_noise: What draws the noise with which such a picture is encoded: "generators" for
            those of the call, before they draw the latents; "torch" for none of them, so that no
            seed of the call makes it again; None where there is no noise.
        from_noise: Whether the loop begins with noise alone, so that pictures are conditions, as a
            ControlNet's.
    """

    denoiser: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    attention: str = "cross_attention_kwargs"
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    guidance: str = "guidance_scale"
    unguided: float | None = 1.0
    negative_prompt: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    fixed_length: bool = False
    packed: bool = False
    encode: Callable[[Any, Tensor], Tensor] | None = None
    call_latents: Callable[..., Tensor] | None = None
    gives_sigmas: bool = False
    backpropagates: bool = False
    pictures: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    picture_noise: Literal["generators", "torch"] | None = None
    from_noise: bool = True

    @property
    def takes_pictures(self) -> bool:
        """Whether the call needs pictures beside the prompt."""
        return bool(self.pictures or self.repeated)

    @property
    def draws_pictures_first(self) -> bool:
        """Whether the call's generators draw the noise of a given picture before the latents."""
        return self.picture_noise == "generators"

    @property
    def step_tensors(self) -> list[str]:
        """What a callback has to ask for: the latents and the conditions."""
        return ["latents", *self.conditions]

    def inputs(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The denoiser's arguments of tensors named as in `conditions`; others are left out."""
        made: dict[str, Any] = {}
        for name, place in self.conditions.items():
            argument, _, key = place.partition(".")
            if key:
                made.setdefault(argument, {})[key] = tensors[name]
            else:
                made[argument] = tensors[name]
        return made


_JOINT: Final = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The text's side of attention layers over pictures and text."""

_FLUX: Final = Family(
    denoiser="transformer",
    lora_targets=(*Family.lora_targets, *_JOINT),
    unguided=None,
    packed=True,
    encode=encode_flux,
    gives_sigmas=True,
    backpropagates=True,
    fixed_length=True,
)

_QWEN: Final = Family(
    denoiser="transformer",
    lora_targets=(*Family.lora_targets, *_JOINT),
    guidance="true_cfg_scale",
    negative_prompt=" ",
    packed=True,
    encode=encode_qwen,
    gives_sigmas=True,
    backpropagates=True,
)

# Its scale counts from 0: 0 for no guidance.
_Z_IMAGE: Final = Family(
    denoiser="transformer", unguided=0.0, gives_sigmas=True, backpropagates=True
)

_TRANSFORMER: Final = Family(
    denoiser="transformer",
    # Of the size and the words that were asked for.
    arguments={"use_resolution_binning": False, "clean_caption": False},
    fixed_length=True,
    backpropagates=True,
)

_CONTROL: Final = ("control_image",)
_SD3_FROM_PICTURES: Final = Family(
    denoiser="transformer", fixed_length=True, pictures=("image",), from_noise=False
)

FAMILIES: Final = Registry(
    "pipeline",
    "stablepref.pipelines",
    {
        "StableDiffusionPipeline": Family(
            denoiser="unet",
            conditions={"prompt_embeds": "encoder_hidden_states"},
            backpropagates=True,
            fixed_length=True,
        ),
        "StableDiffusionXLPipeline": Family(
            denoiser="unet",
            conditions={
                "prompt_embeds": "encoder_hidden_states",
                "add_text_embeds": "added_cond_kwargs.text_embeds",
                "add_time_ids": "added_cond_kwargs.time_ids",
            },
            backpropagates=True,
            fixed_length=True,
        ),
        "StableDiffusion3Pipeline": Family(
            denoiser="transformer",
            conditions={
                "prompt_embeds": "encoder_hidden_states",
                "pooled_prompt_embeds": "pooled_projections",
            },
            attention="joint_attention_kwargs",
            lora_targets=(*Family.lora_targets, *_JOINT),
            backpropagates=True,
            fixed_length=True,
        ),
        "FluxPipeline": _FLUX,
        "Flux2KleinPipeline": Family(
            denoiser="transformer",
            # In blocks that hold both in one, the projections are one layer, too.
            lora_targets=(*Family.lora_targets, *_JOINT, "to_qkv_mlp_proj", "attn.to_out"),
            packed=True,
            encode=encode_flux2,
            call_latents=flux2_call_latents,
            gives_sigmas=True,
            backpropagates=True,
            fixed_length=True,
        ),
        "QwenImagePipeline": _QWEN,
        "ZImagePipeline": _Z_IMAGE,
        "Lumina2Pipeline": Family(
            denoiser="transformer", fixed_length=True, gives_sigmas=True, backpropagates=True
        ),
        "LatentConsistencyModelPipeline": Family(
            denoiser="unet", unguided=None, fixed_length=True, backpropagates=True
        ),
        "PixArtAlphaPipeline": _TRANSFORMER,
        "PixArtSigmaPipeline": _TRANSFORMER,
        "SanaPipeline": _TRANSFORMER,
        # Noise with a picture as a condition.
        **dict.fromkeys(
            ("StableDiffusionControlNetPipeline", "StableDiffusionXLControlNetPipeline"),
            Family(denoiser="unet", fixed_length=True, backpropagates=True, pictures=("image",)),
        ),
        # No noise is optimised: that of their pictures is another in each call of the user's.
        **dict.fromkeys(
            ("StableDiffusion3ControlNetPipeline", "StableDiffusion3ControlNetInpaintingPipeline"),
            Family(
                denoiser="transformer", fixed_length=True, repeated=_CONTROL, picture_noise="torch"
            ),
        ),
        "FluxControlNetPipeline": replace(_FLUX, repeated=_CONTROL, picture_noise="generators"),
        "QwenImageControlNetPipeline": replace(
            _QWEN, repeated=_CONTROL, picture_noise="generators"
        ),
        "ZImageControlNetPipeline": replace(_Z_IMAGE, repeated=_CONTROL),
        "SanaControlNetPipeline": replace(_TRANSFORMER, repeated=_CONTROL),
        # Of these only candidates are made: their loops begin with a picture.
        **dict.fromkeys(
            (
                "StableDiffusionImg2ImgPipeline",
                "StableDiffusionInpaintPipeline",
                "StableDiffusionControlNetImg2ImgPipeline",
                "StableDiffusionControlNetInpaintPipeline",
                "StableDiffusionXLImg2ImgPipeline",
                "StableDiffusionXLInpaintPipeline",
                "StableDiffusionXLControlNetImg2ImgPipeline",
                "StableDiffusionXLControlNetInpaintPipeline",
                "LatentConsistencyModelImg2ImgPipeline",
            ),
            Family(denoiser="unet", fixed_length=True, pictures=("image",), from_noise=False),
        ),
        **dict.fromkeys(
            (
                "StableDiffusion3Img2ImgPipeline",
                "StableDiffusion3InpaintPipeline",
            ),
            _SD3_FROM_PICTURES,
        ),
        **dict.fromkeys(
            (
                "FluxImg2ImgPipeline",
                "FluxInpaintPipeline",
                "FluxControlNetImg2ImgPipeline",
                "FluxControlNetInpaintPipeline",
            ),
            replace(_SD3_FROM_PICTURES, gives_sigmas=True),
        ),
    },
)
"""The rows by the name of the class. Another package adds its own by an entry point of the group
`stablepref.pipelines`, a program by `FAMILIES.register(name, Family(...))`."""


def find_family(pipe: object) -> Family | None:
    """The row of a pipeline, or of the class whose `__call__` it inherits; None without one."""
    kind = type(pipe)
    call = getattr_static(kind, "__call__", None)
    for parent in kind.__mro__:
        inherited = getattr_static(parent, "__call__", None) is call
        if inherited and parent.__name__ in FAMILIES:
            return FAMILIES[parent.__name__]
    return None


def family_of(pipe: object) -> Family:
    """The row of a pipeline that has one.

    Raises:
        KeyError: It has none; a function that takes pipelines of users checks them before.
    """
    found = find_family(pipe)
    if found is None:
        msg = f"there is no row for {type(pipe).__name__} in FAMILIES"
        raise KeyError(msg)
    return found


def own_guidance(pipe: object) -> float:
    """The scale of guidance that the call of a pipeline with a row has by default.

    Raises:
        ValueError: It has none.
    """
    name = family_of(pipe).guidance
    found = signature(type(pipe).__call__).parameters.get(name)
    if found is None or not isinstance(found.default, int | float):
        msg = f"the call of {type(pipe).__name__} has no default for {name}; give guidance"
        raise ValueError(msg)
    return float(found.default)


def entered() -> list[str]:
    """The pipelines that are called from within, step by step: for guidance and pruning."""
    return [name for name in FAMILIES if FAMILIES[name].from_noise]


def trainable() -> list[str]:
    """The pipelines that need a prompt alone: for fine-tuning."""
    return [name for name in FAMILIES if not FAMILIES[name].takes_pictures]


def differentiable() -> list[str]:
    """The pipelines through whose whole call gradients pass."""
    return [name for name in FAMILIES if FAMILIES[name].backpropagates]
