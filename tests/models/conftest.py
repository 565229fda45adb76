"""A server of two scorers in this process, and a scorer that asks it."""

from collections.abc import Iterator

import pytest
from helpers.served import remote, served
from helpers.tiny import tiny_clip
from starlette.testclient import TestClient

from stablepref.models.remote import RemoteScorer
from stablepref.scorer import Scorer


@pytest.fixture(scope="module")
def local() -> Scorer:
    return tiny_clip()


@pytest.fixture(scope="module")
def client(local: Scorer) -> Iterator[TestClient]:
    scorers = {"tiny": local, "hps": tiny_clip(protocol="hps")}
    with served(scorers) as client:
        yield client


@pytest.fixture(scope="module")
def far(client: TestClient) -> RemoteScorer:
    return remote(client, "tiny")
