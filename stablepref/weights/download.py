"""One published file from its address to a path, within limits of time and size."""

from __future__ import annotations

import shutil
from http.client import HTTPException
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stablepref.output.durable import replacing
from stablepref.output.progress import progress_bar
from stablepref.runtime.web import Deadline, open_url

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE: Final = 60.0
"""Seconds for connecting, redirects and headers together, and for each MiB of the body."""
LARGEST: Final = 2**36
"""Bytes of a file whose size is not known beforehand."""
_BLOCK = 2**20
_HEADERS = {"User-Agent": "stablepref (python-urllib)"}


def download(url: str, path: Path, *, size: int | None = None) -> None:
    """Download a file; at `path` there is either all of it or nothing.

    Args:
        url: An http(s) address, whose redirects are followed to such addresses alone; or the file://
            of a file on this machine.
        path: Where it goes; the folder is there.
        size: Its bytes, if known: what sends more is given up.

    Raises:
        OSError: It cannot be downloaded whole: no answer, an error status, more bytes than it
            should have or fewer than were announced, slower than a MiB a minute, a full disk.
    """
    if urlsplit(url).scheme == "file":
        with replacing(path) as staging:
            shutil.copyfile(url2pathname(urlsplit(url).path), staging)
        return
    most = LARGEST if size is None else size
    deadline = Deadline(PATIENCE)
    total = None if size is None else size // _BLOCK
    try:
        with (
            open_url(url, deadline=deadline, headers=_HEADERS) as answer,
            replacing(path) as staging,
            staging.open("wb") as file,
            progress_bar(f"downloading {path.name}, MiB", total=total) as advance,
        ):
            expected, found = answer.length, 0
            while block := answer.read(_BLOCK):
                deadline.renew()
                found += len(block)
                if found > most:
                    msg = f"it is larger than the {most:,} bytes that it should have"
                    raise OSError(msg)
                file.write(block)
                advance(len(block) // _BLOCK)
            if expected is not None and found < expected:
                msg = f"the connection ended after {found:,} of {expected:,} bytes"
                raise OSError(msg)
    except (HTTPException, ValueError) as error:
        msg = f"{url}: {error or type(error).__name__}"
        raise OSError(msg) from error
