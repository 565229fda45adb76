"""One connection of the server: HTTP/1.1 by h11, whose headers have to arrive in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


@final
class TimedConnection(H11Protocol):
    """A connection that is closed when a request's first line and headers do not arrive in time.

    The time runs while the server waits for a request's headers and has nothing else to do for
    this client; bodies have a limit of their own in `guard`. Headers are bounded to 64 KiB by h11,
    which also refuses what two servers could read in two ways.
    """

    seconds: ClassVar[float] = 20.0
    """For the headers of a request."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait on where it is not yet a whole request's headers."""
        super().data_received(data)
        # Between requests uvicorn has a limit of its own, which ends with the first byte.
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            self._wait()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.seconds, self._close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.logger.info("closed a connection whose headers did not come in time")
            self.transport.close()
