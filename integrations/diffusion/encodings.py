"""What a pipeline's VAE makes of the pictures that a call is given, with its noise."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch

from .call import holding
from .families import find_family
from .pipelines import undistributed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


@final
class Encodings:
    """Those of one call of a pipeline, for further calls with the same arguments.

    Args:
        pipe: The pipeline.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 (diffusers has no types)
        self._vae = undistributed(pipe.vae)
        self._made: list[Any] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, the call, of which they are kept."""
        encode = self._vae.encode

        def keeping(*args: object, **kwargs: object) -> object:
            made = encode(*args, **kwargs)
            if hasattr(made, "latent_dist"):
                _draw_once(made.latent_dist)
            self._made.append(made)
            return made

        with holding(self._vae, encode=keeping):
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, a further call, which gets them in their order."""
        made = iter(self._made)

        def known(*args: object, **kwargs: object) -> object:
            del args, kwargs
            return next(made)

        with holding(self._vae, encode=known):
            yield


def _draw_once(distribution: Any) -> None:  # noqa: ANN401 (diffusers has no types)
    """Let a distribution of latents give those that it drew first, whoever asks."""
    draw = distribution.sample
    drawn: list[Tensor] = []

    def sample(generator: object = None) -> Tensor:
        if not drawn:
            drawn.append(draw(generator))
        return drawn[0]

    distribution.sample = sample


@contextmanager
def encoded_by(pipe: Any, generators: Sequence[torch.Generator]) -> Iterator[None]:  # noqa: ANN401 (diffusers has no types)
    """Within, a call encodes its pictures with noise by the seeds of its generators.

    Stable Diffusion 3's ControlNets otherwise take noise that no seed of the call makes again. The
    generators themselves draw what they do anyhow.

    Args:
        pipe: The pipeline; nothing is done if its row does not ask for it.
        generators: One for each picture that is made.
    """
    family = find_family(pipe)
    if family is None or family.picture_noise != "torch":
        yield
        return
    vae = undistributed(pipe.vae)
    encode, own = vae.encode, [_another(generator) for generator in generators]

    def seeded(*args: object, **kwargs: object) -> object:
        made = encode(*args, **kwargs)
        if hasattr(made, "latent_dist"):
            _draw_by(made.latent_dist, own)
        return made

    with holding(vae, encode=seeded):
        yield


def _another(generator: torch.Generator) -> torch.Generator:
    """A generator with a seed that follows from that of another one."""
    seeds = torch.Generator().manual_seed(generator.initial_seed())
    return torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=seeds)))


def _draw_by(distribution: Any, generators: Sequence[torch.Generator]) -> None:  # noqa: ANN401 (diffusers has no types)
    """Let a distribution of latents draw with these generators where it is given none."""
    draw = distribution.sample

    def sample(generator: object = None) -> object:
        rows = len(distribution.mean) // len(generators)  # two for each, under guidance
        return draw([*generators] * rows if generator is None else generator)

    distribution.sample = sample
