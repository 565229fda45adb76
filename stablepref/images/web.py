"""The bytes behind an http(s) address, within limits of time and size."""

import threading
import time
from http.client import HTTPException
from typing import Final, final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from stablepref.images.sources import UnusableImageError
from stablepref.runtime.web import Deadline, open_url

TIMEOUT: Final = 30.0
"""Seconds that a whole download may take: connecting, headers, redirects and body."""

LARGEST: Final = 100 * 2**20
"""Bytes that a download may have: twice the largest photograph a camera writes."""

STRIKES: Final = 3
"""Downloads that a host may let run out of time, one after the other, before it is left alone."""

REST: Final = 60.0
"""Seconds for which it is left alone then, so that a long list with many of its images goes on."""

_CHUNK = 2**16
_HEADERS = {"User-Agent": "stablepref (python-urllib)", "Accept": "image/*,*/*;q=0.5"}


@final
class SlowHosts:
    """Hosts that let downloads run out of time; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._strikes: dict[str, int] = {}
        self._resting: dict[str, float] = {}

    def check(self, host: str) -> None:
        """Refuse a host that is left alone for now.

        Raises:
            UnusableImageError: It is.
        """
        with self._lock:
            left = self._resting.get(host, 0) - time.monotonic()
        if left > 0:
            message = (
                f"{host} let {STRIKES} downloads in a row run out of time and is not asked again "
                f"for {left:.0f} s; download its images first, or score them later"
            )
            raise UnusableImageError(message)

    def answered(self, host: str) -> None:
        """Forget what a host did before."""
        with self._lock:
            self._strikes.pop(host, None)
            self._resting.pop(host, None)

    def ran_out(self, host: str) -> None:
        """Count one more; after a rest the first one is enough for the next."""
        with self._lock:
            self._strikes[host] = self._strikes.get(host, 0) + 1
            if self._strikes[host] >= STRIKES:
                self._resting[host] = time.monotonic() + REST


SLOW: Final = SlowHosts()


def fetch(url: str, *, timeout: float = TIMEOUT, largest: int = LARGEST) -> bytes:
    """Download one file.

    Redirects to other http(s) addresses and the proxy settings of the environment are followed;
    nothing is tried twice.

    Args:
        url: http:// or https:// address; spaces and letters outside ASCII are quoted.
        timeout: seconds for the whole download, from the first attempt to connect on.
        largest: bytes after which it is given up.

    Returns:
        The body of the answer.

    Raises:
        UnusableImageError: no answer, an error status, too slow, too large, cut short, or from a
            host that was too slow several times just now.
    """
    # Characters that have a meaning in an address stay; "%" too, for it may be quoted already.
    address = quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    host = ""
    try:
        host = urlsplit(address).netloc.rpartition("@")[2]
        SLOW.check(host)
        data = _download(address, Deadline(timeout), largest)
    except UnusableImageError:
        raise
    except HTTPError as error:
        SLOW.answered(host)
        error.close()  # it is the open answer as well
        message = f"the server answered {error.code} {error.reason}"
        raise UnusableImageError(message) from error
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            SLOW.ran_out(host)
            message = f"the server did not send the file within {timeout:g} s"
        else:
            message = f"it cannot be downloaded: {reason}"
        raise UnusableImageError(message) from error
    SLOW.answered(host)
    return data


def _download(address: str, deadline: Deadline, largest: int) -> bytes:
    with open_url(address, deadline=deadline, headers=_HEADERS) as answer:
        expected: int | None = answer.length
        data = bytearray()
        while chunk := answer.read1(_CHUNK):
            data += chunk
            if len(data) > largest:
                message = f"the download is larger than the {largest} bytes allowed"
                raise UnusableImageError(message)
            deadline.left()
    if expected is not None and len(data) < expected:
        message = f"the connection ended after {len(data)} of {expected} bytes"
        raise UnusableImageError(message)
    return bytes(data)
