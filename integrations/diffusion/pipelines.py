"""A pipeline of diffusers as the rest of the package sees it, and its parts while they are used."""

from __future__ import annotations

import sys
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REMEMBERED: Final = 8
"""Outputs of a text encoder that are remembered at once: some batches of prompts."""


class Pipeline(Protocol):
    """What is asked of a pipeline of diffusers."""

    @property
    def components(self) -> Mapping[str, object]:
        """Its models, tokenizers and scheduler by name."""

    @property
    def config(self) -> Mapping[str, object]:
        """Its configuration."""

    @property
    def _execution_device(self) -> torch.device:
        """Where it computes, also while its weights are offloaded."""

    def set_progress_bar_config(self, **kwargs: object) -> None:
        """Arguments of its progress bar."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Make images."""


def require_pipeline(pipe: object) -> None:
    """Refuse what is not a pipeline.

    Raises:
        TypeError: It has no components, or cannot be called.
    """
    if isinstance(pipe, type):
        msg = f"pipe is the class {pipe.__name__}; expected a pipeline, {pipe.__name__}(...)"
        raise TypeError(msg)
    if any(parent.__name__ == "ModularPipeline" for parent in type(pipe).__mro__):
        msg = (
            f"pipe is a modular pipeline, {type(pipe).__name__}, whose blocks decide its inputs; "
            "expected one such as StableDiffusionXLPipeline. best_of_n also takes a function "
            "(prompts, seeds) -> images, which may call it"
        )
        raise TypeError(msg)
    if not hasattr(pipe, "components") or not callable(pipe):
        msg = f"pipe is a {type(pipe).__name__}; expected a diffusers text-to-image pipeline"
        raise TypeError(msg)


def modules_of(pipe: Pipeline) -> list[nn.Module]:
    """Its models: denoiser, VAE, text encoders and whatever else has weights."""
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def require_vae(pipe: Pipeline) -> None:
    """Refuse a pipeline whose latents cannot be decoded.

    Raises:
        ValueError: It has no VAE.
    """
    if pipe.components.get("vae") is None:
        msg = f"the {type(pipe).__name__} has no VAE: pictures are scored, not latents"
        raise ValueError(msg)


def refuse_offloading(pipe: Pipeline) -> None:
    """Refuse weights that move away, or change, between the forward and the backward pass.

    Raises:
        ValueError: accelerate or diffusers offloads a part of the pipeline, or diffusers casts its
            layers.
    """
    for name, part in pipe.components.items():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if _is_offloaded(module):
                msg = (
                    f"the pipeline's {name} is offloaded, and a backward pass needs all weights in "
                    "place: load it without offloading and use pipe.to(device)"
                )
                raise ValueError(msg)
            if _has_hook(module, "layerwise_casting"):
                msg = (
                    f"the pipeline's {name} casts its layers for each forward pass, and a backward "
                    "pass needs the weights as they were: load it without "
                    "enable_layerwise_casting(), in bfloat16"
                )
                raise ValueError(msg)


def refuse_safety_checker(pipe: Pipeline) -> None:
    """Refuse a pipeline that would blank what the reward sees.

    Raises:
        ValueError: It has a safety checker.
    """
    if pipe.components.get("safety_checker") is not None:
        msg = (
            "the pipeline has a safety checker, which would blank pictures that the reward sees: "
            "load it with safety_checker=None (--no-safety-checker), or set pipe.safety_checker = "
            "None; what is found works in a pipeline with one"
        )
        raise ValueError(msg)


def _is_offloaded(module: nn.Module) -> bool:
    hook = getattr(module, "_hf_hook", None)
    by_accelerate = bool(getattr(hook, "offload", False)) or type(hook).__name__ == "CpuOffload"
    return by_accelerate or _has_hook(module, "group_offloading")


def _has_hook(module: nn.Module, name: str) -> bool:
    """Whether diffusers has put its hook of that name on the module."""
    hooks: Any = getattr(module, "_diffusers_hook", None)
    return hooks is not None and hooks.get_hook(name) is not None


def texts_of_each(arguments: Mapping[str, object], count: int) -> dict[str, object]:
    """Arguments of a call with a list of prompts: a text for all becomes a list, one for each.

    Pipelines refuse a `negative_prompt` that is a text beside prompts that are a list.
    """
    texts = ("negative_prompt", "prompt_")
    return {
        name: [value] * count if isinstance(value, str) and name.startswith(texts) else value
        for name, value in arguments.items()
    }


def unwrapped(part: object) -> Any:  # noqa: ANN401 (diffusers has no types)
    """A pipeline's part itself: without the wrapper of `torch.compile`, DDP or peft around it.

    To look at, compare and save; to call there is the wrapper. The layers of adapters, which peft
    puts into the network itself, stay.
    """
    if not isinstance(part, nn.Module):
        return part
    inner: Any = extract_model_from_parallel(part, keep_torch_compile=False)
    peft: Any = sys.modules.get("peft")  # without it there is no such wrapper
    if peft is not None and isinstance(inner, peft.PeftModel):
        inner = inner.get_base_model()
    elif peft is not None and isinstance(inner, peft.PeftMixedModel):
        inner = inner.base_model.model
    return inner if inner is part else unwrapped(inner)  # a compiled module within DDP, or the like


def undistributed(part: Any) -> Any:  # noqa: ANN401 (diffusers has no types)
    """A part without DDP around it, which hides the configuration that pipelines look at.

    To call: gradients of processes are added up by whoever trains. `torch.compile` stays.
    """
    return part.module if isinstance(part, DistributedDataParallel) else part


def parts_of(pipe: Pipeline) -> dict[str, Any]:
    """The components of a pipeline by name, each without wrappers."""
    return {name: unwrapped(part) for name, part in pipe.components.items()}


@contextmanager
def without_progress_bar(pipe: Pipeline) -> Iterator[None]:
    """Within, the pipeline does not show a progress bar for each of its calls."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)


@contextmanager
def frozen(pipe: Pipeline) -> Iterator[None]:
    """Within, gradients pass through the pipeline's weights and nothing is kept for their own."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    trained = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def decoder_lifted(vae: Any) -> Iterator[None]:  # noqa: ANN401 (diffusers has no types)
    """Within, a float16 decoder that overflows, as SDXL's does, is in float32.

    Its pipeline does the same. A backward pass through the decoder has to be within, too.
    """
    lifted = vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))
    if lifted:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if lifted:
            vae.to(torch.float16)


def overflow_advice(pipe: Any) -> str:  # noqa: ANN401 (diffusers has no types)
    """What an error message ends with where half precision may be the cause; else empty."""
    if pipe.vae.dtype != torch.float16:
        return ""
    return ". In float16 this may be an overflow: load the pipeline in bfloat16 or float32"


@contextmanager
def texts_encoded_once(pipe: Pipeline) -> Iterator[None]:
    """Within, what a text encoder of `pipe` returned for the same tokens is returned again.

    Pipelines differ in what they make of their encoders' outputs and in how embeddings are passed,
    but all of them call the encoders as modules. The latest outputs are remembered, until the end.
    """
    with ExitStack() as stack:
        for name, part in pipe.components.items():
            if name.startswith("text_encoder") and isinstance(part, nn.Module):
                stack.enter_context(_remembering(part))
        yield


@contextmanager
def _remembering(encoder: nn.Module) -> Iterator[None]:
    """Give the module a `forward` of its own, in front of the one it has, and take it away again.

    Offloading puts its own there too: it is then called, and moves weights, only when needed.
    """
    before = vars(encoder).get("forward")
    forward = encoder.forward
    known: OrderedDict[object, object] = OrderedDict()

    def remembered(*args: object, **kwargs: object) -> object:
        key = _key(args), tuple((name, _key(value)) for name, value in sorted(kwargs.items()))
        found = known.get(key)
        if found is None:  # with two threads perhaps in both, which is as good
            found = known[key] = forward(*args, **kwargs)
            while len(known) > REMEMBERED:
                known.popitem(last=False)
        return found

    vars(encoder)["forward"] = remembered
    try:
        yield
    finally:
        if before is None:
            del vars(encoder)["forward"]
        else:
            vars(encoder)["forward"] = before


def _key(value: object) -> object:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, tuple(value.flatten().tolist())
    if isinstance(value, tuple | list):
        return tuple(_key(part) for part in value)
    return repr(value)
