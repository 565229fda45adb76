"""verl-omni's latent rewards: `POST /latents` below the server, or `/models/NAME/latents`.

Its client sends what its sampler ends with and not a picture: clean latents and the prompt's
embeddings as a safetensors file, one sample a request. The pictures are decoded here. The words of
the prompt are not sent, so that only models that need no prompt can be asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import safetensors.torch
from fastapi import APIRouter, HTTPException, Request
from safetensors import SafetensorError

from ..diffusion.load import load_vae
from ..latent_pictures import LatentPictures
from ..micro_batches import MicroBatches

if TYPE_CHECKING:
    from torch import Tensor

    from .service import Service

HEADER: Final = "x-drm-protocol-version"
VERSION: Final = "1"
RANKS: Final = {"latents": 4, "prompt_embeds": 3, "pooled_prompt_embeds": 2, "u": 1}
"""The tensors of a request, and their numbers of dimensions."""


def router(service: Service) -> APIRouter:
    """The routes, with the VAE of the settings loaded.

    Raises:
        ValueError: Every model needs a prompt.
        OSError: There is no such VAE.
    """
    settings = service.settings
    pictures: dict[str, LatentPictures] = {}
    for name, served in service.models.items():
        if not served.scorer.needs_prompt:
            vae = load_vae(str(settings.vae), device=served.scorer.device)
            pictures[name] = LatentPictures(served.scorer, vae)
    if not pictures:
        msg = (
            "verl-omni's latent rewards send no words of a prompt, and each of "
            f"{', '.join(service.models)} needs some: serve a model that needs none, such as "
            "laion-aesthetic-v2, or see stablepref.integrations.batched_rewards.verl_omni_latents"
        )
        raise ValueError(msg)
    batches = {
        name: MicroBatches(
            one,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            on_batch=lambda size, name=name: service.metrics.batch(name, size),  # type: ignore[misc] # bound now
        )
        for name, one in pictures.items()
    }
    service.before_close(lambda: [asyncio.to_thread(one.close) for one in batches.values()])
    routes = APIRouter(tags=["verl-omni, latents"])

    @routes.post("/latents")
    async def score(request: Request) -> dict[str, Any]:
        """The score of the first model that needs no prompt."""
        return await _score(next(iter(pictures)), request)

    @routes.post("/models/{model}/latents")
    async def score_with(model: str, request: Request) -> dict[str, Any]:
        """The score of this model."""
        service.model(model)
        return await _score(model, request)

    async def _score(name: str, request: Request) -> dict[str, Any]:
        if name not in pictures:
            raise HTTPException(400, f"{name} needs a prompt, whose words are not sent here")
        if (version := request.headers.get(HEADER)) != VERSION:
            raise HTTPException(400, f"{HEADER} is {version!r:.40}; this server speaks {VERSION!r}")
        behind = pictures[name]
        try:
            latents = behind.check(_sample(await request.body()))
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        if behind.pixels(latents) > service.max_pixels:
            detail = f"the picture of these latents has more than {service.max_pixels:.0f} pixels"
            raise HTTPException(413, detail)
        (found,) = await asyncio.wrap_future(batches[name].submit([latents], [""]))
        failed = isinstance(found, str)
        service.metrics.images(name, scored=not failed, failed=failed)
        if failed:
            raise HTTPException(422, str(found))
        return {"protocol_version": VERSION, "raw_scores": [found]}

    return routes


def _sample(body: bytes) -> Tensor:
    """The latents `(1, channels, h, w)` of a request.

    The noise level `u` and the seeds are for reward models that score noisy latents; those of this
    server see the clean picture.

    Raises:
        ValueError: It is not such a request.
    """
    try:
        tensors = safetensors.torch.load(body)
    except (SafetensorError, ValueError, KeyError) as error:
        msg = f"the body is not a safetensors file: {error!s:.200}"
        raise ValueError(msg) from error
    for name, rank in RANKS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim != rank or len(tensor) != 1:
            got = "nothing" if tensor is None else f"the shape {tuple(tensor.shape)}"
            msg = f"{name} must be a tensor of {rank} dimensions, the first of them 1; got {got}"
            raise ValueError(msg)
    if not 0 <= float(tensors["u"]) <= 1:
        msg = f"the noise level u must be in [0, 1], got {float(tensors['u'])}"
        raise ValueError(msg)
    return tensors["latents"]
