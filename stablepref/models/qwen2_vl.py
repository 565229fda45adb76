"""Qwen2-VL without its language head: transformers' own modules, and what official files need.

transformers is an optional dependency, so it is imported when a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from stablepref.models.rotary import ExactTables
from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.preprocess.patches import PatchBatch

_SHARED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


def build_body(sizes: Mapping[str, Any], *, rows: int) -> Any:  # noqa: ANN401 - transformers' class
    """Qwen2-VL's vision tower and language model, with random weights.

    Args:
        sizes: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
            num_key_value_heads, mrope_section, and "vision" with depth, embed_dim and num_heads.
        rows: Tokens of the vocabulary.

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        from transformers import Qwen2VLConfig, Qwen2VLModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = f"vision-language models need transformers: pip install 'stablepref[vlm]' ({error})"
        raise ImportError(msg) from error
    config = Qwen2VLConfig(
        text_config={name: sizes[name] for name in _SHARED}
        | {
            "vocab_size": rows,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": list(sizes["mrope_section"])},
            "use_sliding_window": False,
            "pad_token_id": None,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={"hidden_size": sizes["hidden_size"], **sizes["vision"]},
    )
    return Qwen2VLModel(config)


def official_to_ours(state: Mapping[str, Tensor], *, head: str) -> dict[str, dict[str, Tensor]]:
    """The weights of a model on Qwen2-VL, by part, with transformers' present names.

    Files are laid out as transformers before 4.52 ("visual.", "model.") or since ("model.visual.",
    "model.language_model."). The language head, which scores nothing, is left out.

    Args:
        state: Official names and weights.
        head: Prefix of the weights of the model's own head, such as "rm_head.".

    Returns:
        "body", with names of `build_body`, and "head", without the prefix.

    Raises:
        WeightsError: There are names of both layouts, or of neither.
    """
    kept = {key: value for key, value in state.items() if not key.startswith("lm_head.")}
    own = {k.removeprefix(head): v for k, v in kept.items() if k.startswith(head)}
    rest = {key: value for key, value in kept.items() if not key.startswith(head)}
    late = [key for key in rest if key.startswith(("model.visual.", "model.language_model."))]
    if late and len(late) < len(rest):
        others = sorted(set(rest) - set(late))[:3]
        msg = f"the file has keys of two layouts: beside {late[0]} also {', '.join(others)}"
        raise WeightsError(msg)
    if late:
        return {"body": {k.removeprefix("model."): v for k, v in rest.items()}, "head": own}
    body = {}
    for key, value in rest.items():
        under = key.startswith("model.")
        body["language_model." + key.removeprefix("model.") if under else key] = value
    return {"body": body, "head": own}


def image_tokens(body: Any, batch: PatchBatch) -> list[Tensor]:  # noqa: ANN401 - transformers' class
    """The tokens of each picture, `(tokens, hidden_size)`, in the dtype of the vision tower."""
    visual = body.visual
    values = batch.values.to(visual.patch_embed.proj.weight.dtype)
    found = visual(values, grid_thw=batch.grid.to(values.device))
    tokens = found if isinstance(found, Tensor) else found.pooler_output  # before and since 5
    per_token = visual.spatial_merge_size**2
    return list(tokens.split((batch.grid.prod(-1) // per_token).tolist()))


@final
class RotaryTables:
    """The frequencies of both towers' rotary embeddings: exact, or as bfloat16 rounds them.

    The official code of HPS v3 casts its whole model, these too; `rounded` does as it does.

    Args:
        body: Of `build_body`.
    """

    def __init__(self, body: Any) -> None:  # noqa: ANN401 - transformers' class
        self._exact = ExactTables(body)
        self._exact_vision: Any = body.visual.rotary_pos_emb

    def put(self, body: Any, *, rounded: bool) -> None:  # noqa: ANN401 - transformers' class
        """Give the body its tables, where its weights are.

        Args:
            body: The body that this was made with.
            rounded: Round them, and in the vision tower also the angles, to bfloat16.
        """
        text = body.language_model.rotary_emb
        device = text.inv_freq.device
        self._exact.put(device)
        body.visual.rotary_pos_emb = self._exact_vision
        if rounded:
            text.inv_freq = text.inv_freq.bfloat16().float()
            table = self._exact_vision.inv_freq
            body.visual.rotary_pos_emb = RoundedVisionRotary(table).to(device)


@final
class RoundedVisionRotary(nn.Module):
    """The vision tower's rotary embedding when all of it is computed in bfloat16.

    Args:
        table: Frequencies.
    """

    inv_freq: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("inv_freq", table.bfloat16(), persistent=False)

    def forward(self, *inputs: Any) -> Any:  # noqa: ANN401 - two signatures
        """Angles of all positions up to a number (transformers 4), or cosines and sines (5)."""
        positions = inputs[-1]
        if len(inputs) == 1:
            steps = torch.arange(int(positions), device=self.inv_freq.device)
            return torch.outer(steps.to(self.inv_freq.dtype), self.inv_freq)
        angles = positions[..., None].to(self.inv_freq.dtype) * self.inv_freq
        both = angles.flatten(-2)
        both = torch.cat([both, both], dim=-1)
        return both.cos(), both.sin()
