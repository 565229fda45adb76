"""Prompts that images bring: captions beside them, and what generators write into them."""

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from stablepref.data.image_prompts import prompt_of
from stablepref.data.manifest import read_items
from stablepref.images.sources import UnusableImageError

CASES = {"a1111.png": "metadata", "comfyui.png": "metadata", "red.png": "caption"}


def made(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def test_the_forms_that_people_hold(shared_data: Path) -> None:
    for name, source in CASES.items():
        expected = "a red square" + (", flat colour" if source == "metadata" else "")
        assert prompt_of(shared_data / "cases" / name, source) == expected


def test_parameters_end_where_the_settings_begin(tmp_path: Path) -> None:
    text = "a fox,\nSteps up a hill\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a"
    assert prompt_of(made(tmp_path / "a.png", parameters=text), "metadata") == (
        "a fox,\nSteps up a hill"
    )
    plain = made(tmp_path / "b.png", parameters="an owl\nSteps: 20, Size: 64x64")
    assert prompt_of(str(plain), "metadata") == "an owl"


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
def test_parameters_in_an_exif_comment(tmp_path: Path, encoding: str) -> None:
    """Web interfaces write JPEG and WebP so, by Exif 2.32: UNICODE, NUL, then UTF-16."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + (
        "a café at night\nSteps: 4, Seed: 1".encode(encoding)
    )
    path = tmp_path / "a.jpg"
    Image.new("RGB", (4, 4)).save(path, exif=exif)
    assert prompt_of(path, "metadata") == "a café at night"


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


GUIDED = {
    "1": node("SamplerCustomAdvanced", noise=["9", 0], guider=["2", 0]),
    "2": node("BasicGuider", model=["8", 0], conditioning=["3", 0]),
    "3": node("FluxGuidance", guidance=3.5, conditioning=["4", 0]),
    "4": node("CLIPTextEncode", text=["5", 0], clip=["8", 1]),
    "5": node("String", value="a lighthouse"),
}
TWICE = {
    "1": node("KSampler", positive=["3", 0], negative=["4", 0]),
    "2": node("KSampler", positive=["3", 0], negative=["4", 0], latent_image=["1", 0]),
    "3": node("CLIPTextEncodeSDXL", text_g="a lighthouse", text_l="a lighthouse", width=1024),
    "4": node("CLIPTextEncode", text="blurry"),
}
CIRCLE = {
    "1": node("KSampler", positive=["2", 0], negative=["4", 0]),
    "2": node("ConditioningCombine", conditioning_1=["3", 0], conditioning_2=["2", 0]),
    "3": node("CLIPTextEncode", text="a lighthouse"),
    "4": node("CLIPTextEncode", text="blurry"),
}


@pytest.mark.parametrize("graph", [GUIDED, TWICE, CIRCLE])
def test_a_graph_is_followed_from_its_sampler(tmp_path: Path, graph: object) -> None:
    path = made(tmp_path / "a.png", prompt=json.dumps(graph), workflow="{}")
    assert prompt_of(path, "metadata") == "a lighthouse"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "hold no prompt"),
        ("[" * 100_000, "hold no prompt"),
        ("[1]", "hold no prompt"),
        ('{"1": {"inputs": {"positive": 3, "negative": {}}}}', "hold no prompt"),
        ('{"1": {"inputs": {"positive": ["1", 0], "negative": 0}}, "2": 7}', "hold no prompt"),
        (
            '{"1": {"inputs": {"positive": "a", "negative": ""}},'
            ' "2": {"inputs": {"positive": "b", "negative": ""}}}',
            "several prompts: a | b",
        ),
    ],
)
def test_metadata_without_one_prompt_are_an_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UnusableImageError, match=says.replace("|", r"\|")):
        prompt_of(made(tmp_path / "a.png", prompt=text), "metadata")


def test_each_image_has_its_own_prompt_or_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        made(tmp_path / name)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfan owl\n")
    (tmp_path / "b.txt").write_text(" \n")
    (tmp_path / "c.txt").write_bytes(b"\xff")
    items = list(read_items([str(tmp_path)], None, prompt_from="caption"))
    assert [item.prompt for item in items] == ["an owl", None, None]
    assert items[0].image == tmp_path / "a.png"
    assert "b.txt is empty" in str(items[1].image)
    assert "c.txt cannot be read" in str(items[2].image)
    (other,) = read_items(["http://host/a.png"], None, prompt_from="metadata")
    assert "with files only" in str(other.image)
    with pytest.raises(ValueError, match="leave one out"):
        read_items([str(tmp_path)], "x", prompt_from="caption")
    with pytest.raises(ValueError, match="a manifest stands alone"):
        read_items(["a.csv"], None, prompt_from="caption")
