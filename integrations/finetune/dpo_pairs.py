"""Pairs of pictures that people ranked, as a pipeline's latents."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from stablepref.images.decoding import decode
from stablepref.images.sources import iter_sources

from .batches import noise_seed, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stablepref.data.groups import RankedGroup

    from ..diffusion.sampling import SamplingLoop
    from .method_settings import Pairing

_PAIRS: Final = 2
REMEMBERED_BYTES: Final = 2**30
"""Of latents that are remembered: 4,096 pictures of Stable Diffusion XL, 1,024 of FLUX.1."""


class Pair(NamedTuple):
    """Two pictures of a prompt of which one is better.

    Attributes:
        prompt: What they should show.
        better: The better one, anything that `stablepref.images` accepts.
        worse: The other one.
    """

    prompt: str
    better: object
    worse: object


class Drawn(NamedTuple):
    """A pair in a training step.

    Attributes:
        pair: The pair.
        seed: Of its noise, one for both pictures.
    """

    pair: Pair
    seed: int

    @property
    def prompt(self) -> str:
        """What the pictures should show."""
        return self.pair.prompt


def pairs_of(groups: Iterable[RankedGroup], pairing: Pairing) -> list[Pair]:
    """The untied pairs of ranked groups, in order; ties make none.

    Args:
        groups: Ranked groups, of any reader of `stablepref.data`.
        pairing: "all" pairs of a group, or its "extremes": the best picture against the worst, of
            equal ones the first.

    Raises:
        ValueError: There is no pair.
    """
    pairs, count = [], 0
    for group in groups:
        count += 1
        found = group.pairs()
        if pairing == "extremes" and found:
            best, worst = min(group.ranks), max(group.ranks)
            found = [(group.ranks.index(best), group.ranks.index(worst))]
        pairs += [Pair(group.prompt, group.images[b], group.images[w]) for b, w in found]
    if not pairs:
        msg = f"{count} ranked groups hold no pair of which one is better; ties make none"
        raise ValueError(msg)
    return pairs


def step_pairs(pairs: Sequence[Pair], step: int, *, batch_size: int, seed: int) -> list[Drawn]:
    """The pairs of a training step, in a new random order each time all of them were used.

    Args:
        pairs: To train on.
        step: From 0.
        batch_size: Number of pairs.
        seed: Of order and noise.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [
        Drawn(
            pairs[shuffled(len(pairs), place // len(pairs), seed)[place % len(pairs)]],
            noise_seed(seed, _PAIRS, step, place - places.start),
        )
        for place in places
    ]


@final
class PairLatents:
    """Latents of pairs, as the pipeline's VAE encodes pictures of the size that it makes.

    Pictures are made as large as they have to be to fill that size, and cut at the centre. Latents
    are remembered, up to a number of bytes, and each picture is encoded alone, so that they are the
    same bit for bit whether they were remembered or not, as after a kill.

    Args:
        loop: The pipeline's sampling, whose weights of the VAE do not change.
        most_bytes: Of latents that are remembered, on the CPU; those used longest ago are dropped.
    """

    def __init__(self, loop: SamplingLoop, *, most_bytes: int = REMEMBERED_BYTES) -> None:
        self._loop = loop
        self._most = most_bytes
        self._known: OrderedDict[str | int, tuple[object, Tensor]] = OrderedDict()
        self._bytes = 0

    def __call__(self, drawn: Sequence[Drawn]) -> Tensor:
        """Finished latents `(2 x pairs, ...)`: of the better ones, then of the others.

        Raises:
            ImageError: A picture cannot be used; names it.
        """
        pictures = [one.pair.better for one in drawn] + [one.pair.worse for one in drawn]
        return torch.cat([self._latents(picture) for picture in pictures]).to(
            self._loop.pipe.device
        )

    def _latents(self, picture: object) -> Tensor:
        """Of one picture, `(1, ...)` on the CPU; known by its path, or as the object that it is."""
        key: str | int = str(picture) if isinstance(picture, str | os.PathLike) else id(picture)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key][1]
        found = self._loop.encode(self._pixels(picture)[None]).cpu()
        self._known[key] = picture, found  # held, so that no other gets its id
        self._bytes += found.nbytes
        while self._bytes > self._most:
            _, (_, dropped) = self._known.popitem(last=False)
            self._bytes -= dropped.nbytes
        return found

    def _pixels(self, picture: object) -> Tensor:
        """One picture `(3, H, W)` in [0, 1], of the size that is made."""
        (source,) = iter_sources([picture])
        found = decode(source)
        pixels = found if isinstance(found, Tensor) else pil_to_tensor(found).float() / 255
        height, width = size = self._loop.size
        scale = max(height / pixels.shape[1], width / pixels.shape[2])
        enough = [
            max(length, round(side * scale))
            for side, length in zip(pixels.shape[1:], size, strict=True)
        ]
        if enough != list(pixels.shape[1:]):
            pixels = resize(pixels, enough, antialias=True).clamp(0, 1)
        return center_crop(pixels, [height, width])


def training_noise(
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    seeds: Sequence[int],
    like: Tensor,
    *,
    flow: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise and noise levels of pairs, as in training a diffusion model.

    Of noise schedules by timestep every timestep is as likely. Of flow matching the level is the
    logistic of a normal number (Esser et al. 2024, section 3.1), shifted as the scheduler shifts.

    Args:
        scheduler: The pipeline's.
        seeds: One for each pair.
        like: Latents `(pairs, ...)`, for shape and device.
        flow: Whether it is one of flow matching.

    Returns:
        Timesteps `(pairs,)`; factors of picture and of noise, `(pairs, 1, ...)`; and the noise, of
        the shape of `like`.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (-1, *(1,) * (like.ndim - 1))
    if flow:
        normal = torch.stack([torch.randn((), generator=one) for one in generators]).double()
        sigma = normal.sigmoid()
        config = scheduler.config
        shift = config.get("shift", config.get("flow_shift", 1.0))
        if config.get("use_dynamic_shifting"):
            shift = 1.0
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        times, signal = sigma * scheduler.config.num_train_timesteps, 1 - sigma
    else:
        steps = scheduler.config.num_train_timesteps
        times = torch.stack([torch.randint(steps, (), generator=one) for one in generators])
        kept = scheduler.alphas_cumprod.cpu().double()[times]
        signal, sigma = kept.sqrt(), (1 - kept).sqrt()
    noise = torch.stack([torch.randn(like.shape[1:], generator=one) for one in generators])
    return (
        times.float().to(like.device) if flow else times.to(like.device),
        signal.to(like).view(shape),
        sigma.to(like).view(shape),
        noise.to(like),
    )
