"""What a server holds, and what it allows."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

PROTOCOLS: Final = {
    "unirl": "UniRL: POST /score",
    "flow-factory": "Flow-Factory: POST /compute",
    "cosmos-rl": "cosmos-rl: POST /api/reward/enqueue and /api/reward/pull",
    "latents": "verl-omni, latent rewards: POST /latents; needs a VAE and a model without prompt",
    "pickle": "flow_grpo and verl-omni: POST / with pickled lists of images and prompts",
}
"""Trainers' protocols, and where they are."""

USUAL: Final = ("unirl", "flow-factory", "cosmos-rl")
"""Those that are on without being asked for."""

MEGA: Final = 10**6


@final
@dataclass(frozen=True)
class ServeSettings:
    """What a server holds, and what it allows.

    Attributes:
        models: `MODEL`, or `NAME=MODEL`: what `stablepref.load` takes, and what clients call it.
        device: Of all models; None chooses.
        dtype: Of all models; None chooses.
        host: The address to listen at.
        port: 0 takes a free one.
        token: What clients must send; None lets every client of this machine in.
        protocols: Names of `PROTOCOLS`, beside the server's own.
        max_batch: Images that a model scores at once; None chooses.
        max_delay: Seconds for which an image waits for others.
        max_waiting: Requests that are worked on or wait; more are refused with 503.
        max_request_mb: Megabytes of one request.
        max_total_mb: Megabytes of all requests that are there at once; more are refused with 503.
        max_megapixels: Of one image.
        max_images: Of one request.
        body_timeout: Seconds in which a request has to arrive.
        vae: What decodes the latents of the protocol "latents": the name or folder of a diffusers
            pipeline, or the folder of a VAE.
        folders: Where requests may name image files; none by default.
        workers: Processes, each with all models.
        grace: Seconds for finishing what was accepted, once the server is asked to stop.

    Raises:
        ValueError: A value is out of range; or the address can be reached from other machines and
            there is no token.
    """

    models: tuple[str, ...]
    device: str | None = None
    dtype: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    protocols: tuple[str, ...] = USUAL
    max_batch: int | None = None
    max_delay: float = 0.005
    max_waiting: int = 256
    max_request_mb: float = 64
    max_total_mb: float = 2048
    max_megapixels: float = 64
    max_images: int = 1024
    body_timeout: float = 30
    vae: str | None = None
    folders: tuple[str, ...] = ()
    workers: int = 1
    grace: float = 60

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        if not self.models:
            msg = "name at least one model to serve, such as hps-v2.1"
            raise ValueError(msg)
        names = [name for name, _ in self.named_models()]
        if twice := {name for name in names if names.count(name) > 1}:
            msg = f"two models are called {', '.join(sorted(twice))}: name one of them NAME=MODEL"
            raise ValueError(msg)
        if unknown := set(self.protocols) - set(PROTOCOLS):
            msg = f"unknown protocol {', '.join(unknown)}; expected some of {', '.join(PROTOCOLS)}"
            raise ValueError(msg)
        for field in (
            "max_waiting",
            "max_request_mb",
            "max_total_mb",
            "max_megapixels",
            "max_images",
            "workers",
        ):
            if not getattr(self, field) > 0:
                msg = f"{field} must be above 0, got {getattr(self, field)}"
                raise ValueError(msg)
        if "latents" in self.protocols and not self.vae:
            msg = (
                "the protocol latents needs the VAE that decodes them: pass --vae with the folder "
                "or name of the pipeline that is trained, such as "
                "stabilityai/stable-diffusion-3.5-medium"
            )
            raise ValueError(msg)
        if self.workers > 1 and "cosmos-rl" in self.protocols:
            msg = (
                "cosmos-rl asks again for a request's result, and another of several worker "
                "processes would not know it: leave cosmos-rl out of the protocols, or take one "
                "worker"
            )
            raise ValueError(msg)
        if not is_loopback(self.host) and not self.token:
            msg = (
                f"{self.host} can be reached from other machines, so that a token is needed: write "
                "one into a file and pass --token-file, or set STABLEPREF_TOKEN"
            )
            raise ValueError(msg)
        for folder in self.folders:
            if not Path(folder).is_dir():
                msg = f"{folder} is not a folder, so that no images in it can be allowed"
                raise ValueError(msg)

    def named_models(self) -> list[tuple[str, str]]:
        """What clients call each model, and what `stablepref.load` takes for it."""
        pairs = []
        for model in self.models:
            name, equals, path = model.partition("=")
            if not equals or "/" in name or ":" in name:  # an equals sign in a path or address
                name, path = model.rstrip("/").rpartition("/")[2], model
            pairs.append((name, path))
        return pairs

    def to_json(self) -> str:
        """The settings as text, for worker processes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeSettings:
        """The settings that `to_json` wrote."""
        read: dict[str, Any] = json.loads(text)
        fields: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in read.items()}
        return cls(**fields)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which no other machine can reach."""
    host = host.strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
