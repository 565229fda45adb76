"""The frequencies of rotary embeddings, which 16 bits are too few for."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    import torch
    from torch import nn


@final
class ExactTables:
    """The frequencies of a model's rotary embeddings in float32, whatever it is cast to.

    A model's `.to(torch.bfloat16)` also rounds these, and a frequency times a position of several
    hundred magnifies the error.

    Args:
        model: One whose buffers of frequencies, as transformers' models, end in "inv_freq".
    """

    def __init__(self, model: nn.Module) -> None:
        self._kept = [
            (module, name, buffer.detach().float().cpu().clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name.endswith("inv_freq")
        ]

    def put(self, device: torch.device | None = None) -> None:
        """Give the model its tables again.

        Args:
            device: Where to; None for where each table is.
        """
        for module, name, table in self._kept:
            place = getattr(module, name).device if device is None else device
            setattr(module, name, table.to(place, copy=True))
