"""What a pipeline's pictures depend on beside the arguments of its call.

Its weights and its scheduler, and what its users switch on and off: adapters and their scales,
FreeU, attention processors, caches, tiling, added tokens. A folder that records it refuses to
continue with another pipeline. What changes pictures by rounding alone, such as `torch.compile`,
attention slicing, xFormers and offloading, does not count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from stablepref.weights.fingerprint import fingerprint, part_digests, scheduler_digest, text_digest

from .pipelines import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .pipelines import Pipeline

_FREEU: Final = ("s1", "s2", "b1", "b2")  # what `enable_freeu` sets on each block
_VARIANTS: Final = re.compile(r"2_0|Sliced|XFormers|Fused|NPU|XLA")  # of one attention, by name
_OWN: Final = "slice_size"  # attribute of a processor that changes nothing


def described_pipeline(pipe: Pipeline) -> dict[str, object]:
    """What tells a pipeline's pictures from another's, plain JSON values."""
    parts = parts_of(pipe)
    networks = {name: part for name, part in sorted(parts.items()) if isinstance(part, nn.Module)}
    configured = [name for name, p in networks.items() if isinstance(getattr(p, "config", 0), dict)]
    switched = {
        **{name: _switched(network) for name, network in networks.items()},
        "tokens": _added_tokens(parts),
        "pag": fingerprint(getattr(pipe, "pag_applied_layers", None)),
    }
    return {
        "pipeline": type(pipe).__name__,
        "settings": _plain(pipe.config),
        "weights": pipeline_digests(pipe),
        "dtypes": {name: _dtype(network) for name, network in networks.items()},
        "configs": {name: scheduler_digest(networks[name]) for name in configured},
        "scheduler": scheduler_digest(parts.get("scheduler")),
        "switched_on": {name: value for name, value in switched.items() if value},
    }


def pipeline_digests(pipe: Pipeline) -> dict[str, str]:
    """The digest of each network of a pipeline by name, whatever wraps it."""
    return part_digests(parts_of(pipe))


def _switched(network: nn.Module) -> dict[str, object]:
    """What is switched on in a network, by kind; what is off is left out."""
    looked_at: dict[str, Callable[[Any], object]] = {
        "adapters": _adapters,
        "freeu": lambda module: [v for name in _FREEU if (v := getattr(module, name, None))],
        "processors": lambda module: _processor(getattr(module, "processor", None)),
        "hooks": _hooks,
        "dropout": lambda module: isinstance(module, nn.Dropout) and module.training and module.p,
        "tiling": lambda module: _tiles(module) if getattr(module, "use_tiling", False) else None,
    }
    found = {kind: _by_value(network, look) for kind, look in looked_at.items()}
    kinds = {type(module).__qualname__ for module in network.modules()}
    found["layers"] = {text_digest(sorted(kinds)): len(kinds)}  # some patches replace the classes
    return {kind: values for kind, values in found.items() if values}


def _by_value(network: nn.Module, look: Callable[[Any], object]) -> dict[str, object]:
    """Each value that a network's modules have, but for empty ones, with a hash of whose it is."""
    places: dict[str, list[str]] = {}
    for name, module in network.named_modules():
        if value := look(module):
            places.setdefault(str(value), []).append(name)
    return {value: text_digest(names) for value, names in sorted(places.items())}


def _adapters(module: Any) -> object:  # noqa: ANN401 (a layer of peft, or anything else)
    """Of a layer with adapters those in use, with their scales."""
    active = getattr(module, "active_adapters", None)
    if not isinstance(active, list):  # of whole networks it is a method
        return None
    merged = list(getattr(module, "merged_adapters", ()))
    if module.disable_adapters:
        return f"disabled, merged {merged}" if merged else "disabled"
    scales = getattr(module, "scaling", {})
    mine = [name for name in active if name in scales] if scales else active
    return ", ".join([f"{name} at {scales.get(name, 1.0)}" for name in [*mine, *merged]])


def _processor(processor: object) -> object:
    """A processor's class, for equal ones the same, with its settings."""
    if processor is None:
        return None
    kind = _VARIANTS.sub("", type(processor).__qualname__)
    state = {name: value for name, value in _plain(vars(processor)).items() if name != _OWN}
    return f"{kind} {state}" if state else kind


def _hooks(module: object) -> object:
    """The hooks of diffusers on a module that are not for offloading, with their settings."""
    hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    return [f"{name} {_plain(vars(hook))}" for name, hook in hooks.items() if "offload" not in name]


def _tiles(decoder: object) -> object:
    return {name: v for name, v in _plain(vars(decoder)).items() if name.startswith("tile_")}


def _added_tokens(parts: Mapping[str, Any]) -> dict[str, object]:
    """The tokens that were added to tokenizers, with their embeddings (textual inversion)."""
    found: dict[str, object] = {}
    for name, tokenizer in sorted(parts.items()):
        if not name.startswith("tokenizer") or tokenizer is None:
            continue
        added = {t: i for t, i in tokenizer.get_added_vocab().items()
                 if t not in tokenizer.all_special_tokens}  # fmt: skip
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        if added and encoder is not None:
            rows = encoder.get_input_embeddings().weight
            found[name] = {
                token: None if rows.is_meta else fingerprint(rows[place])
                for token, place in sorted(added.items())
            }
    return found


def _dtype(network: nn.Module) -> str:
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in network.parameters()}
    return ", ".join(sorted(kinds))


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Numbers, texts and lists of them, but for private ones, in the order of their names."""
    return {
        name: fingerprint(value)
        for name, value in sorted(values.items())
        if not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)
