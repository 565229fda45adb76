"""What goes over the wire: requests that only look like ones, and pictures as they are."""

import json

import pytest
import safetensors.torch
import torch
from helpers.served import noisy
from PIL import Image
from starlette.testclient import TestClient

from stablepref.models.wire import Deferred, pack, unpack


def _bytes(tensors: dict[str, torch.Tensor], **request: object) -> bytes:
    return safetensors.torch.save(tensors, metadata={"request": json.dumps(request)})


PICTURE = torch.zeros(4, 5, 3, dtype=torch.uint8)
PIXELS = torch.zeros(2, 3, 4, 5)
BOX = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4).contiguous()


@pytest.mark.parametrize(
    ("tensors", "row"),
    [
        ({"picture.0": PICTURE.float()}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE[:, :, :2].contiguous()}, ["picture", 0, None, None, 0]),
        ({"picture.x": PICTURE}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE[:0]}, ["picture", 0, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture", 1, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture", 0, None, None, 1]),
        ({"picture.0": PICTURE}, ["picture", 0, None, None, -1]),
        ({"picture.0": PICTURE}, ["picture", [], None, None, 0]),
        ({"picture.0": PICTURE}, ["other", 0, None, None, 0]),
        ({"picture.0": PICTURE}, ["picture"]),
        ({"pixels.0": PIXELS[0].contiguous()}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS + 2}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS * float("nan")}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS.int()}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, 2, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, None, None, 0]),
        ({"pixels.0": PIXELS}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX}, ["pixels", 0, 0, 1, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX}, ["pixels", 0, 0, None, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX * 2}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX.flip(2).contiguous()}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "boxes.0": BOX[:1].contiguous()}, ["pixels", 0, 0, 0, 0]),
        ({"pixels.0": PIXELS, "hflip.0": torch.zeros(2, 1)}, ["pixels", 0, 0, 0, 0]),
        ({"pieces.0": PIXELS, "boxes.0": BOX, "hflip.0": BOX[:, :, 0] > 0}, ["pixels", 0, 0, 0, 0]),
        ({"pieces.0": PICTURE.permute(2, 0, 1)[None].contiguous()}, ["pixels", 0, 0, None, 0]),
    ],
    ids=range(25),
)
def test_a_request_that_only_looks_like_one(
    client: TestClient, tensors: dict[str, torch.Tensor], row: list[object]
) -> None:
    body = _bytes(tensors, prompts=["a"], rows=[row])
    answer = client.post("/v1/models/tiny/tensors", content=body)
    assert answer.status_code == 400, answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello world, hello world",
        b"\xff" * 100,
        _bytes({"picture.0": PICTURE}, prompts=["a"]),
        _bytes({"picture.0": PICTURE}, prompts="a", rows=[["picture", 0, None, None, 0]]),
        _bytes({"picture.0": PICTURE}, prompts=[1], rows=[["picture", 0, None, None, 0]]),
        safetensors.torch.save({"picture.0": PICTURE}),
        _bytes({"picture.0": PICTURE}, prompts=["a"], rows=[])[:-1],
    ],
    ids=range(8),
)
def test_a_body_that_is_no_request(client: TestClient, body: bytes) -> None:
    assert client.post("/v1/models/tiny/tensors", content=body).status_code == 400


def test_views_of_pictures_of_several_sizes_keep_their_rows() -> None:
    preprocess = Deferred("clip")
    boxes = torch.tensor([0.1, 0.2, 0.8, 0.9]).expand(2, 3, 4)
    pixels = [torch.rand(3, 4, 5), torch.rand(3, 6, 7)]
    rows = preprocess(pixels, boxes, None)
    request = unpack(pack([rows[1][2]], ["a"]))
    assert request.rows[0][1:4] == (0, 0, 2)
    assert next(iter(request.pixels.values())).pixels.shape == (1, 3, 6, 7)


def test_pictures_come_through_as_they_are() -> None:
    image = noisy(1)[0]
    (found,) = unpack(pack([image, image], ["a", "b"])).pictures.values()
    assert found.tobytes() == image.tobytes()
    assert isinstance(found, Image.Image)
