"""The server as a deployment of Ray Serve: as many replicas as there are GPUs, on many machines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .app import create_app
from .service import load_scorers
from .settings import USUAL, ServeSettings

try:
    from ray import serve
except ImportError as error:
    _msg = f"this needs Ray Serve: pip install 'stablepref[serve,ray-serve]' ({error})"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.serve import Application

    from .guard import Guard

NAME = "stablepref"


def deployment(
    models: Sequence[str],
    *,
    replicas: int = 1,
    num_gpus: float = 0,
    num_cpus: float = 1,
    **settings: Any,  # noqa: ANN401 (fields of ServeSettings, of several types)
) -> Application:
    """An application for `ray.serve.run`, with all models in each replica.

    Each replica has its own queue and answers a request by itself; Ray's proxy chooses one. A
    replica that dies is started again, and a client of `stablepref.load("http://...")` asks again
    for what it had not answered: scoring changes nothing, so that no score is lost or given twice.

    Args:
        models: As of `stablepref serve`: `MODEL` or `NAME=MODEL`.
        replicas: How many.
        num_gpus: Of each replica; 1 gives each a GPU of its own, 0 the CPU.
        num_cpus: Of each replica.
        **settings: Fields of `ServeSettings`, such as `token`, `protocols` or `max_waiting`. Host
            and port are Ray's: `ray.serve.start(http_options={"host": ..., "port": ...})`. With
            more than one replica cosmos-rl's protocol is left out, since another replica would not
            know a request's result.

    Raises:
        ValueError: As `ServeSettings`, and for replicas below 1.
    """
    if replicas < 1:
        msg = f"replicas must be 1 or more, got {replicas}"
        raise ValueError(msg)
    if replicas > 1:
        settings.setdefault("protocols", tuple(one for one in USUAL if one != "cosmos-rl"))
    settings.setdefault("device", "cuda" if num_gpus else "cpu")
    checked = ServeSettings(tuple(models), workers=replicas, **settings)
    checked = replace(checked, workers=1)

    def build() -> Guard:
        return create_app(load_scorers(checked), checked)

    # Classes and functions of this library are found by name on each machine.
    made = serve.deployment(
        name=NAME,
        num_replicas=replicas,
        max_ongoing_requests=checked.max_waiting,
        graceful_shutdown_timeout_s=checked.grace,
        ray_actor_options={"num_gpus": num_gpus, "num_cpus": num_cpus},
    )(serve.ingress(build)())
    application: Application = made.bind()
    return application
