"""A server as an ASGI application: its own protocol, those of trainers, and what watches it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from . import cosmos_rl, flow_factory, latents, own, pickled, unirl
from .guard import FAILED, Guard
from .metrics import MEDIA_TYPE, Metrics
from .service import Service, TooManyImagesError, UnknownModelError
from .settings import MEGA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from stablepref.scorer import Scorer

    from .settings import ServeSettings

ROUTERS = {
    "unirl": unirl.router,
    "flow-factory": flow_factory.router,
    "cosmos-rl": cosmos_rl.router,
    "latents": latents.router,
    "pickle": pickled.router,
}


def create_app(scorers: Mapping[str, Scorer], settings: ServeSettings) -> Guard:
    """The application that serves scorers.

    Args:
        scorers: By the name that clients use.
        settings: Protocols and bounds; its `models` are not loaded here.
    """
    service = Service(scorers, settings, Metrics())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="stablepref",
        description="Scores of text-to-image generations, by the reward models of this server.",
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(own.router)
    for protocol in settings.protocols:
        app.include_router(ROUTERS[protocol](service))
    _watch(app, service)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(UnknownModelError, _not_found)
    app.add_exception_handler(TooManyImagesError, _too_many)
    app.add_exception_handler(RequestValidationError, _wrong_request)
    return Guard(app, service)


def _watch(app: FastAPI, service: Service) -> None:
    """Add health, models and metrics."""

    @app.get("/health", tags=["server"])
    async def health(request: Request) -> dict[str, Any]:
        """Whether the server is alive; with the token also what it serves."""
        names = service.models if request.state.known else ()
        return {"status": "ok", "rewards": {name: ["score"] for name in names}}

    @app.get("/models", tags=["server"])
    async def models() -> dict[str, Any]:
        """The models with their units, and the bounds on requests."""
        settings = service.settings
        return {
            "models": [served.described() for served in service.models.values()],
            "limits": {
                "max_request_bytes": int(settings.max_request_mb * MEGA),
                "max_pixels": int(service.max_pixels),
                "max_images": settings.max_images,
                "max_waiting": settings.max_waiting,
            },
        }

    @app.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """Counts in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Say nothing of the inside; the log has it."""
    del request, error
    return JSONResponse({"detail": FAILED}, 500)


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    """A model that is not served; the message is the service's own."""
    del request
    return JSONResponse({"detail": str(error)}, 404)


async def _too_many(request: Request, error: Exception) -> JSONResponse:
    """A request of more images than are taken at once; the message is the service's own."""
    del request
    return JSONResponse({"detail": str(error)}, 413)


async def _wrong_request(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong where, and not repeat what came, which may be a picture."""
    del request
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(faults)}, 422)
