"""Signals that ask a long run to stop at its next safe place."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that collects SIGINT and SIGTERM, which then have no other effect.

    The caller looks into it wherever it can stop. A second SIGINT interrupts at once. Outside the
    main thread, where Python cannot catch signals, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:  # noqa: ANN401 (the signature of signal.signal)
        del frame
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int) -> None:
    """End as the signal would have: KeyboardInterrupt for SIGINT, else exit code 128 + number.

    Raises:
        KeyboardInterrupt: For SIGINT.
        SystemExit: For any other signal.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
