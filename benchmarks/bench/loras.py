"""LoRAs of diffusers, peft and kohya's scripts, put on a pipeline whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safetensors.torch import load_file
from torch import nn

from stablepref.weights.network import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_DIFFUSERS: Final = "pytorch_lora_weights.safetensors"
_PEFT: Final = ("adapter_model.safetensors", "adapter_config.json")
_PEFT_PREFIX: Final = "base_model.model."
# The first matrix of a layer in the names of peft, diffusers and kohya.
_FIRST_MATRIX: Final = (".lora_A.", ".lora.down.", ".lora_down.", "_lora.down.")


def put_lora(pipe: Any, where: str, *, name: str) -> None:  # noqa: ANN401 (diffusers has no types)
    """Load a LoRA onto a pipeline, under a name.

    Args:
        pipe: A pipeline of diffusers that takes LoRAs.
        where: A file or a folder, of diffusers (`pytorch_lora_weights.safetensors`), of peft
            (`adapter_model.safetensors` beside `adapter_config.json`), or with one safetensors file
            of another name, as kohya's scripts write; or a hub repository.
        name: Of the adapter.

    Raises:
        ValueError: The folder holds no such file, or several; or the LoRA, or a part of it, does
            not fit the pipeline.
        OSError: There is no such LoRA.
    """
    source: str | dict[str, Tensor] = where
    more: dict[str, Any] = {"use_safetensors": True}
    here = Path(where).expanduser()
    if here.exists():
        file = _file_of(here)
        if (file.parent / _PEFT[1]).is_file() and file.name == _PEFT[0]:
            source = _of_peft(pipe, file)
        else:
            source = str(file.parent)
            more["weight_name"] = file.name
    try:
        read = pipe.lora_state_dict(dict(source) if isinstance(source, dict) else source, **more)
        wanted = _layers(read[0] if isinstance(read, tuple) else read)
        pipe.load_lora_weights(source, adapter_name=name, **more)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        msg = f"the LoRA {where} does not fit the {type(pipe).__name__}: {first_line(error)}"
        raise ValueError(msg) from error
    fitting = sum(_has_adapter(module, name) for module in _modules(pipe))
    if fitting < wanted or not fitting:
        msg = (
            f"{fitting} of the {wanted} layers of the LoRA {where} fit the {type(pipe).__name__}: "
            "it was made for another model"
        )
        raise ValueError(msg)


def _file_of(here: Path) -> Path:
    if here.is_file():
        return here
    for usual in (_DIFFUSERS, _PEFT[0]):
        if (here / usual).is_file():
            return here / usual
    found = sorted(here.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no safetensors file"
        msg = f"the LoRA folder {here} holds {names}; name one file, lora=FOLDER/FILE"
        raise ValueError(msg)
    return found[0]


def _of_peft(pipe: Any, file: Path) -> dict[str, Tensor]:  # noqa: ANN401 (diffusers has no types)
    """The matrices that peft saved, under diffusers' names, with alpha / rank multiplied in."""
    config = json.loads((file.parent / _PEFT[1]).read_text(encoding="utf-8"))
    unfit = [key for key in ("use_dora", "alpha_pattern") if config.get(key)]
    if unfit:
        msg = f"the LoRA {file.parent} has {', '.join(unfit)}, which is not supported"
        raise ValueError(msg)
    weights = load_file(file)
    denoiser = "transformer" if pipe.components.get("transformer") is not None else "unet"
    made = {}
    for key, weight in weights.items():
        layer = key.removeprefix(_PEFT_PREFIX)
        part = "text_encoder" if layer.startswith("text_model.") else denoiser
        if ".lora_B." in layer:
            rank = weight.shape[1]
            over = math.sqrt(rank) if config.get("use_rslora") else rank
            weight = weight * (config.get("lora_alpha", rank) / over)  # noqa: PLW2901
        made[f"{part}.{layer}"] = weight
    return made


def _layers(state: Iterable[str]) -> int:
    return sum(any(mark in key for mark in _FIRST_MATRIX) for key in state)


def _modules(pipe: Any) -> Iterable[nn.Module]:  # noqa: ANN401 (diffusers has no types)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            yield from part.modules()


def _has_adapter(module: nn.Module, name: str) -> bool:
    matrices = getattr(module, "lora_A", None)
    return isinstance(matrices, nn.ModuleDict) and name in matrices
