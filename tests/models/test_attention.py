"""open_clip's attention and patches by fewer operations: beside torch's own, gradients too."""

import copy
import math

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from stablepref.models import attention
from stablepref.models.attention import PatchProducts, SelfAttention, attend, use_products
from stablepref.models.backbone import clip_network

BACKBONE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {
        "context_length": 12, "vocab_size": 50, "width": 32, "heads": 4, "layers": 2,
    },
}  # fmt: skip


def pair(**options: object) -> tuple[nn.MultiheadAttention, SelfAttention]:
    """Torch's module and ours with the same weights, in double precision."""
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(24, 3, batch_first=True, **options).double()  # type: ignore[arg-type] # handed on
    nn.init.normal_(plain.in_proj_bias)
    nn.init.normal_(plain.out_proj.bias)
    ours = copy.deepcopy(plain)
    ours.__class__ = SelfAttention
    assert isinstance(ours, SelfAttention)
    return plain, ours


def causal(tokens: int) -> Tensor:
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


@pytest.mark.parametrize("short", [0, 128])  # the fused kernel, and plain products
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_are_torchs_own(
    short: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    mask = causal(5) if masked else None
    found = []
    for module in pair():
        x = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        out, weights = module(x, x, x, need_weights=False, attn_mask=mask)
        assert weights is None
        (out * torch.arange(24)).sum().backward()
        module.eval()
        with torch.inference_mode():
            still = module(x, x, x, need_weights=False, attn_mask=mask)[0]
        found.append([out, still, x.grad, *(weight.grad for weight in module.parameters())])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("learns", [False, True])
def test_attention_is_the_papers_formula(learns: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(3))
    query.requires_grad_(learns)
    found = attend(query, key, value, None)
    for batch in range(2):
        for head in range(3):
            for token in range(4):
                products = [
                    float(query[batch, head, token] @ key[batch, head, other]) / math.sqrt(5)
                    for other in range(4)
                ]
                whole = sum(math.exp(one) for one in products)
                expected = sum(
                    math.exp(one) / whole * value[batch, head, other]
                    for other, one in enumerate(products)
                )
                torch.testing.assert_close(found[batch, head, token], expected)


def test_what_no_block_asks_for_is_as_before() -> None:
    plain, ours = pair()
    x, other = torch.randn(2, 2, 5, 24, dtype=torch.float64)
    padding = torch.tensor([[False] * 4 + [True]] * 2)
    for call in (
        lambda m: m(x, other, other, need_weights=False),
        lambda m: m(x, x, x),
        lambda m: m(x, x, x, need_weights=False, key_padding_mask=padding),
        lambda m: m(x, x, x, need_weights=False, attn_mask=causal(5) < 0),
    ):
        for expected, found in zip(call(plain), call(ours), strict=True):
            torch.testing.assert_close(found, expected)
    dropping, ours = pair(dropout=0.5)
    for module in (dropping, ours):
        torch.manual_seed(3)
        module.dropped = module(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(ours.dropped, dropping.dropped)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", [(12, 18), (14, 20)])  # the second with incomplete patches
def test_patches_are_those_of_the_convolution(bias: bool, side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 7, (4, 6), (4, 6), bias=bias).double()
    ours = copy.deepcopy(plain)
    ours.__class__ = PatchProducts
    pixels = torch.randn(2, 3, *side, dtype=torch.float64)
    found = []
    for module in (plain, ours):
        x = pixels.clone().requires_grad_()
        out = module(x)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        found.append([out, x.grad, *(weight.grad for weight in module.parameters())])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-9)


def test_whole_towers_give_what_open_clips_give() -> None:
    torch.manual_seed(0)
    ours = clip_network(BACKBONE)
    plain = CLIP(**copy.deepcopy(BACKBONE))  # type: ignore[arg-type] # as open_clip's factory does
    plain.load_state_dict(ours.state_dict())  # names and shapes are the same
    kinds = [type(block.attn) for block in ours.visual.transformer.resblocks]
    assert kinds == [SelfAttention] * 2
    assert type(ours.transformer.resblocks[0].attn) is SelfAttention
    assert type(ours.visual.conv1) is PatchProducts
    pixels = torch.randn(3, 3, 32, 32)
    tokens = torch.randint(1, 49, (3, 12))
    found = []
    for model in (plain, ours):
        image, text = model.encode_image(pixels), model.encode_text(tokens)
        (image * text).sum().backward()
        grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
        model.eval()
        with torch.inference_mode():
            still = model.encode_image(pixels), model.encode_text(tokens)
        found.append([image, text, *still, *grads])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


def test_other_modules_are_left_alone() -> None:
    torch.manual_seed(0)
    custom = {**BACKBONE, "vision_cfg": {**BACKBONE["vision_cfg"], "qk_norm": True}}  # type: ignore[dict-item] # a mapping
    model = clip_network(custom)
    kind = type(model.visual.transformer.resblocks[0].attn)
    assert kind is open_clip.transformer.Attention
    model.visual.conv1 = nn.Conv2d(3, 4, 3, stride=1)
    use_products(model)
    assert type(model.visual.conv1) is nn.Conv2d
