"""The bytes behind an http(s) address, within limits of time and size."""

import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from stablepref.images.sources import UnusableImageError

TIMEOUT = 30.0
"""Seconds that a whole download may take, and that the server may stay silent."""

LARGEST = 100 * 2**20
"""Bytes that a download may have: twice the largest photograph a camera writes."""

_CHUNK = 2**16
_HEADERS = {"User-Agent": "stablepref (python-urllib)", "Accept": "image/*,*/*;q=0.5"}


def fetch(url: str, *, timeout: float = TIMEOUT, largest: int = LARGEST) -> bytes:
    """Download one file.

    Redirects and the proxy settings of the environment are followed; nothing is tried twice.

    Args:
        url: http:// or https:// address; spaces and letters outside ASCII are quoted.
        timeout: seconds for the whole download.
        largest: bytes after which it is given up.

    Returns:
        The body of the answer.

    Raises:
        UnusableImageError: no answer, an error status, too slow, too large or cut short.
    """
    # Characters that have a meaning in an address stay; "%" too, for it may be quoted already.
    address = quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    deadline = time.monotonic() + timeout
    try:
        request = Request(address, headers=_HEADERS)
        with urlopen(request, timeout=timeout) as answer:
            expected: int | None = answer.length
            data = bytearray()
            while chunk := answer.read1(_CHUNK):
                data += chunk
                if len(data) > largest:
                    message = f"the download is larger than the {largest} bytes allowed"
                    raise UnusableImageError(message)
                if time.monotonic() > deadline:
                    message = f"the download took longer than {timeout:g} s"
                    raise UnusableImageError(message)
    except UnusableImageError:
        raise
    except HTTPError as error:
        error.close()  # it is the open answer as well
        message = f"the server answered {error.code} {error.reason}"
        raise UnusableImageError(message) from error
    except TimeoutError as error:
        message = f"the server did not answer within {timeout:g} s"
        raise UnusableImageError(message) from error
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        message = f"it cannot be downloaded: {getattr(error, 'reason', error)}"
        raise UnusableImageError(message) from error
    if expected is not None and len(data) < expected:
        message = f"the connection ended after {len(data)} of {expected} bytes"
        raise UnusableImageError(message)
    return bytes(data)
