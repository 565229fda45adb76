"""A server as a process, or as several: uvicorn with the application of `create_app`."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from stablepref.runtime.allocator import keep_freed_memory

from .address import check_address
from .app import create_app
from .connection import TimedConnection
from .metrics import SHARED_FOLDER
from .service import load_scorers
from .settings import ServeSettings

if TYPE_CHECKING:
    from .guard import Guard

SETTINGS_VARIABLE: Final = "STABLEPREF_SERVE_SETTINGS"
HUNG_SECONDS: Final = 300
"""After which a worker that does not answer its parent is started anew. uvicorn's own 5 s are less
than importing torch and loading a model take on a busy machine: workers were killed before they
served, again and again."""


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is finished.

    Raises:
        ValueError: As `stablepref.load`, or the port is taken.
        UnavailableError: As `stablepref.load`.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": TimedConnection,
        "ws": "none",
        "log_level": "info",
        "access_log": False,
        "timeout_graceful_shutdown": round(settings.grace),
        "server_header": False,
    }
    check_address(settings.host, settings.port)  # before minutes are spent on models
    keep_freed_memory()
    if settings.workers == 1:
        app = create_app(load_scorers(settings), settings)  # before the port is taken
        uvicorn.Server(uvicorn.Config(app, **options)).run()
        return
    os.environ[SETTINGS_VARIABLE] = settings.to_json()
    with tempfile.TemporaryDirectory(prefix="stablepref-metrics-") as folder:
        os.environ.setdefault(SHARED_FOLDER, folder)
        place = f"{__name__}:app_of_worker"
        uvicorn.run(
            place,
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=HUNG_SECONDS,
            **options,
        )


def app_of_worker() -> Guard:
    """The application of a worker process, by the settings that `run` left in the environment."""
    keep_freed_memory()
    settings = ServeSettings.from_json(os.environ[SETTINGS_VARIABLE])
    return create_app(load_scorers(settings), settings)
