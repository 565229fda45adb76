"""A scorer whose weights are in another process: `stablepref serve`, over HTTP."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx2
import torch
from torch import Tensor

from stablepref.models.joint import JointScorer
from stablepref.models.wire import MEDIA_TYPE, Deferred, pack, size_of
from stablepref.output.text import shorten
from stablepref.scoring.contract import FailedInputsError
from stablepref.weights.hub import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stablepref.models.entry import Entry

TOKEN_VARIABLE: Final = "STABLEPREF_TOKEN"
BUSY: Final = (429, 503)
TRY_AGAIN: Final = (408, 500, 502, 504, *BUSY)
LONGEST_PAUSE: Final = 30.0
SHARE: Final = 0.9
"""Of a server's largest request, what images may take: the rest is for prompts and headers."""


class Address(NamedTuple):
    """Where a scorer is, taken apart.

    Attributes:
        base: The server, `http://host:port` and the path that it is mounted under, if it is.
        model: What the server calls the model; empty for its only one.
        token: What the server asks for; None for none.
    """

    base: str
    model: str
    token: str | None


@final
class RemoteScorer(JointScorer):
    """A scorer of `stablepref serve`, with the contract of a local one, and without gradient.

    Images are decoded here and scored there; float tensors and weak views are computed by the
    server's model as they would be here, so that the same batch has the same scores to the last
    bit. May be used from several threads, copied and pickled.

    A request that finds no server, or that the server answers with 408 or 5xx, is sent again
    `retries` times after growing pauses; a busy server (429, 503) is asked again after the time
    that it names, for `patience` seconds. Any other 4xx ends with the server's words.

    Args:
        url: `http://host:port/model`, or `http://host:port` of a server with one model. A token
            may stand before the host, `http://:TOKEN@host:port/model`; otherwise it is
            `$STABLEPREF_TOKEN`, if that is set.
        timeout: Seconds to wait for one answer.
        retries: How often a request is sent again.
        patience: Seconds for which a busy server is asked again.
        transport: An httpx2 transport in place of the network.

    Raises:
        UnavailableError: There is no such server, or it refuses.
        ValueError: The server does not have this model; the message lists those it has.
    """

    what = "a model on a server"

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        retries: int = 4,
        patience: float = 300.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        address = parse_address(url)
        self._address, self._timeout, self._transport = address, timeout, transport
        self._retries, self._patience = retries, patience
        self._client: tuple[int, httpx2.Client] | None = None
        info = self._described()
        host = urlsplit(address.base).netloc
        super().__init__(
            name=f"{info['name']}@{host}",
            unit=str(info["unit"]),
            preprocess=Deferred(str(info["protocol"])),
            preference_scale=info["preference_scale"],
            identity=f"{info['name']} {info['fingerprint']}",
        )
        self.needs_prompt = bool(info["needs_prompt"])
        self.model = str(info["name"])
        self._largest = int(SHARE * info["max_request_bytes"])
        self._most = int(info.get("max_images", 2**31))

    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """The server's scores `(batch,)`, float32.

        Raises:
            FailedInputsError: The server rejects some of the images; its reasons are kept.
            UnavailableError: It does not answer, or not with scores.
        """
        scores: list[float] = []
        reasons: dict[int, str] = {}
        for start, end in self._pieces(inputs):
            body = pack(inputs[start:end], prompts[start:end])
            answer = self._ask("POST", f"/v1/models/{quote(self.model, safe='')}/tensors", body)
            found, errors = answer["scores"], answer["errors"]
            if len(found) != end - start or len(errors) != end - start:
                msg = f"{self.name} answered {len(found)} scores for {end - start} images"
                raise UnavailableError(msg)
            for row, (score, error) in enumerate(zip(found, errors, strict=True), start):
                if error is not None or score is None:
                    reasons[row] = str(error)
                scores.append(float("nan") if score is None else score)
        if reasons:
            raise FailedInputsError(reasons)
        return torch.tensor(scores, dtype=torch.float32, device=self.device)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: no open connections."""
        return super().__getstate__() | {"_client": None}

    def _pieces(self, inputs: Sequence[Any]) -> Iterator[tuple[int, int]]:
        """Parts of a batch that fit into the server's largest request, each one image or more."""
        start = size = 0
        seen: set[int] = set()
        for row, one in enumerate(inputs):
            part = getattr(one, "pixels", one)
            more = 0 if id(part) in seen else size_of(one)
            if row > start and (size + more > self._largest or row - start >= self._most):
                yield start, row
                start, size, more = row, 0, size_of(one)
                seen.clear()
            seen.add(id(part))
            size += more
        if start < len(inputs):
            yield start, len(inputs)

    def _described(self) -> Mapping[str, Any]:
        """What the server says of the model, and of its own limits."""
        found = self._ask("GET", "/models")
        try:
            models = {one["name"]: one for one in found["models"]}
            limits = found["limits"]
        except (TypeError, LookupError) as error:
            msg = f"{self._address.base} is not a server of stablepref: {shorten(repr(found))}"
            raise UnavailableError(msg) from error
        model = self._address.model
        if not model and len(models) == 1:
            return limits | next(iter(models.values()))
        if model not in models:
            asked = f"no model {model!r}" if model else "several models"
            msg = (
                f"{self._address.base} has {asked}; expected {self._address.base}/ and one of "
                f"{', '.join(models)}"
            )
            raise ValueError(msg)
        return limits | models[model]

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401 (JSON)
        """The server's answer, after as many tries as its state is worth."""
        url = self._address.base + path
        patient_until = time.monotonic() + self._patience
        failures = 0
        while True:
            try:
                answer = self._open().request(method, url, content=body)
                if answer.is_success:
                    return answer.json()
                fault, pause = _fault(answer), _named_pause(answer)
                busy = answer.status_code in BUSY
                hopeless = answer.status_code not in TRY_AGAIN
            except (httpx2.TransportError, ValueError) as error:  # ValueError: not JSON
                fault, pause = str(error) or type(error).__name__, None
                busy, hopeless = False, isinstance(error, httpx2.UnsupportedProtocol)
            failures += not busy
            late = busy and time.monotonic() > patient_until
            if hopeless or late or failures > self._retries:
                tries = f" after {failures} tries" if failures > 1 else ""
                msg = f"{url}: {fault}{tries}"
                raise UnavailableError(msg)
            # Clients that were refused together do not come back together.
            usual = min(0.25 * 2**failures, LONGEST_PAUSE)
            time.sleep((usual if pause is None else pause) * random.uniform(0.5, 1.5))

    def _open(self) -> httpx2.Client:
        """The connections of this process."""
        if self._client is None or self._client[0] != os.getpid():
            token = self._address.token
            headers = {"Content-Type": MEDIA_TYPE}
            headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
            client = httpx2.Client(
                headers=headers,
                timeout=self._timeout,
                transport=self._transport,
                limits=httpx2.Limits(max_connections=None),
            )
            self._client = os.getpid(), client
        return self._client[1]


def open_remote(entry: Entry, files: Sequence[Path]) -> RemoteScorer:
    """The scorer behind an address; see `stablepref.models.catalog.SCHEMES`."""
    del files
    return RemoteScorer(entry.name)


def parse_address(url: str) -> Address:
    """An address taken apart; see `RemoteScorer`.

    Raises:
        ValueError: It names no host.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        msg = f"{url!r} is not http://host:port/model"
        raise ValueError(msg)
    folder, _, model = parts.path.rpartition("/")
    host = parts.netloc.rpartition("@")[2]
    token = unquote(parts.password or parts.username or "") or os.environ.get(TOKEN_VARIABLE)
    base = urlunsplit((parts.scheme, host, folder, "", "")).rstrip("/")
    return Address(base, unquote(model), token or None)


def _fault(answer: httpx2.Response) -> str:
    """The server's own words for what is wrong."""
    try:
        said = answer.json()["detail"]
    except (ValueError, LookupError, TypeError):
        said = answer.text
    return f"the server answered {answer.status_code}: {shorten(str(said))}"


def _named_pause(answer: httpx2.Response) -> float | None:
    """Seconds of Retry-After, if it names some."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() else None
