"""Every PIL mode to RGB, against values worked by hand from the definition of the mode."""

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image, ImageOps

from stablepref.images.decoding import decode
from stablepref.images.rgb import over_white, to_rgb
from stablepref.images.sources import ImageError, Source, UnusableImageError


def picture(value: object) -> Image.Image:
    """Decode one value that has to give a PIL image."""
    image = decode(Source(0, "test", value))
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    return image


def colours(value: object) -> list[list[int]]:
    """Decoded pixels, row by row."""
    return np.asarray(picture(value)).reshape(-1, 3).tolist()


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    """Bytes of an image file of the named format."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def png(
    depth: int, kind: int, row: bytes, width: int, chunks: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG file of one row, written by hand from the PNG specification."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    middle = b"".join(chunk(*each) for each in chunks)
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + data + chunk(b"IEND", b"")


def test_over_white_rounds_correctly_for_every_colour_and_alpha() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([colour, 255 - colour, colour // 2, alpha], axis=-1).astype(np.uint8)
    got = np.asarray(over_white(Image.fromarray(pixels)))
    exact = (pixels[..., :3] * (alpha[..., None] / 255.0)) + 255.0 - alpha[..., None]
    # 255 is odd, so that no exact value lies halfway between two levels.
    assert np.array_equal(got, np.rint(exact).astype(np.uint8))


def test_opaque_rgba_equals_plain_rgb(rng: np.random.Generator) -> None:
    rgb = Image.fromarray(rng.integers(0, 256, (17, 23, 3), dtype=np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(255)
    assert np.array_equal(np.asarray(picture(rgba)), np.asarray(rgb))


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


SIMPLE = {
    "grey": (Image.new("L", (1, 1), 77), [77, 77, 77]),
    "one bit, white": (Image.new("1", (1, 1), 1), [255, 255, 255]),
    "one bit, black": (Image.new("1", (1, 1), 0), [0, 0, 0]),
    "RGBX": (Image.new("RGBX", (1, 1), (1, 2, 3, 0)), [1, 2, 3]),
    "grey with alpha": (Image.new("LA", (1, 1), (100, 51)), [224, 224, 224]),  # 20 + 204
    "grey with alpha, clear": (Image.new("LA", (1, 1), (0, 0)), [255, 255, 255]),
    "premultiplied grey": (Image.new("La", (1, 1), (20, 51)), [224, 224, 224]),
    "premultiplied": (Image.new("RGBa", (1, 1), (20, 0, 51, 51)), [224, 204, 255]),
    "alpha": (Image.new("RGBA", (1, 1), (255, 0, 100, 51)), [255, 204, 224]),
    # Naive CMYK: 255 less ink, less black.
    "CMYK, no ink": (Image.new("CMYK", (1, 1), (0, 0, 0, 0)), [255, 255, 255]),
    "CMYK, red": (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), [255, 0, 0]),
    "CMYK, black": (Image.new("CMYK", (1, 1), (0, 0, 0, 255)), [0, 0, 0]),
    # JFIF: R = Y + 1.402 (Cr - 128), G = Y - 0.344 (Cb - 128) - 0.714 (Cr - 128), ...
    "YCbCr": (Image.new("YCbCr", (1, 1), (100, 128, 168)), [156, 71, 100]),
    "HSV, red": (Image.new("HSV", (1, 1), (0, 255, 255)), [255, 0, 0]),
    "HSV, dark grey": (Image.new("HSV", (1, 1), (99, 0, 51)), [51, 51, 51]),
    "float grey": (Image.new("F", (1, 1), 0.5), [128, 128, 128]),  # 127.5 rounds up
    "float white": (Image.new("F", (1, 1), 1.0), [255, 255, 255]),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_modes(name: str) -> None:
    image, expected = SIMPLE[name]
    assert colours(image) == [expected]


def test_lab_red_is_red() -> None:
    # sRGB red is L* 54.29, a* 80.81, b* 69.89 under D50. L is scaled to 255; a and b are offset by
    # 128 in memory, and two's complement in a TIFF file (TIFF 6.0, section 23).
    image = Image.new("LAB", (1, 1), (round(54.29 * 2.55), 128 + 81, 128 + 70))
    file = encoded(image, "TIFF")
    assert bytes([138, 81, 70]) in file
    for value in (image, file):
        assert np.abs(np.array(colours(value)[0]) - [255, 0, 0]).max() <= 6  # of 8-bit Lab


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_grey_is_scaled_and_rounded(mode: str) -> None:
    values = np.arange(65536).reshape(256, 256)
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (256, 256), values.astype(dtype).tobytes())
    levels = np.rint(values * (255 / 65535)).astype(np.uint8)
    assert np.array_equal(np.asarray(picture(image)), np.repeat(levels[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_16_bit_files(name: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 30000, 65535]], dtype=np.uint16))
    # 30000 / 257 = 116.73
    assert [c[0] for c in colours(encoded(image, name))] == [0, 1, 117, 255]


def test_32_bit_grey_must_look_like_16_bit() -> None:
    for values in ([-1, 65535], [0, 65536]):
        image = Image.fromarray(np.array([values], dtype=np.int32))
        with pytest.raises(ImageError, match=r"mode I is read as 16-bit grey, 0 to 65535"):
            picture(image)
    with pytest.raises(ImageError, match=r"would be black.*convert\(\"L\"\)"):
        picture(Image.fromarray(np.array([[0, 200]], dtype=np.int32)))
    assert colours(Image.new("I", (1, 1), 0)) == [[0, 0, 0]]
    assert colours(b"P5\n1 1\n65535\n\x00\xc8") == [[1, 1, 1]]  # in a file it is 16 bits: 200 / 257


def test_float_mode_obeys_the_range() -> None:
    with pytest.raises(UnusableImageError, match=r"must lie in \[0, 1\], got 200 to 200.*255"):
        to_rgb(Image.new("F", (1, 1), 200.0))


def test_palette_with_and_without_transparency() -> None:
    palette = (b"PLTE", bytes([10, 20, 30, 40, 50, 60, 0, 0, 0]))
    assert colours(png(8, 3, bytes([0, 1]), 2, [palette])) == [[10, 20, 30], [40, 50, 60]]
    alphas = (b"tRNS", bytes([255, 0, 51]))
    got = colours(png(8, 3, bytes([0, 1, 2]), 3, [palette, alphas]))
    assert got == [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    image = Image.new("PA", (1, 1))
    image.putpalette([200, 100, 0])
    image.putalpha(51)
    assert colours(image) == [[244, 224, 204]]  # colour / 5 + 204


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            png(8, 2, bytes([1, 2, 3, 4, 5, 6]), 2, [(b"tRNS", struct.pack(">3H", 1, 2, 3))]),
            [[255] * 3, [4, 5, 6]],
        ),
        (
            png(8, 0, bytes([85, 170]), 2, [(b"tRNS", struct.pack(">H", 85))]),
            [[255] * 3, [170] * 3],
        ),
        (png(1, 0, b"\x40", 2, [(b"tRNS", struct.pack(">H", 0))]), [[255] * 3, [255] * 3]),
        (png(1, 0, b"\x40", 2), [[0] * 3, [255] * 3]),
        (
            png(16, 0, struct.pack(">2H", 300, 25700), 2, [(b"tRNS", struct.pack(">H", 300))]),
            [[255] * 3, [100] * 3],
        ),
    ],
    ids=["RGB", "grey", "one bit", "one bit opaque", "16 bit"],
)
def test_a_transparent_colour_becomes_white(file: bytes, expected: list[list[int]]) -> None:
    assert colours(file) == expected


def test_cmyk_jpeg_is_not_inverted() -> None:
    # Adobe's CMYK JPEGs hold inverted ink; read plainly, white would come out black.
    for ink, colour in [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0)]:
        file = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        assert Image.open(io.BytesIO(file)).mode == "CMYK"
        assert np.abs(np.array(colours(file)) - colour).max() <= 1


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ["red", "blue", "lime"]]
    options = {"lossless": True} if name == "WEBP" else {}
    file = encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)
    opened = Image.open(io.BytesIO(file))
    assert getattr(opened, "n_frames", 1) == 3
    assert colours(file) == [[255, 0, 0]] * 64
    opened.seek(1)
    assert colours(opened)[0] == [0, 0, 255]  # a frame that the user chose stays chosen


# What orientation n stores for the upright picture [[1, 2, 3], [4, 5, 6]], from the EXIF standard's
# words: which side of the picture the stored row 0 and column 0 are.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],  # row 0 is the top, column 0 the left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "memory", "palette"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_once(name: str, orientation: int) -> None:
    stored = Image.fromarray(np.array(STORED[orientation], dtype=np.uint8) * 40)
    stored = stored.convert("P" if name == "palette" else "RGB")
    exif = stored.getexif()
    exif[0x0112] = orientation
    value: object = stored
    if name == "memory":
        stored.info["exif"] = exif.tobytes()
    else:
        options = {"lossless": True} if name == "WEBP" else {}
        value = encoded(stored, "PNG" if name == "palette" else name, exif=exif, **options)
    image = picture(value)
    assert (np.asarray(image)[..., 0] // 40).tolist() == STORED[1]
    again = picture(image)
    assert np.array_equal(np.asarray(again), np.asarray(image))


def test_orientation_is_applied_beside_a_tag_that_pillow_cannot_write() -> None:
    """XResolution as a signed number (type 9), where the standard has a fraction."""
    tags = [(0x0112, 3, 1, 6), (0x011A, 9, 1, 2**32 - 1)]
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    file = encoded(Image.fromarray(np.array(STORED[6], dtype=np.uint8) * 40), "PNG", exif=exif)
    with Image.open(io.BytesIO(file)) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    upright = np.asarray(decode(Source(0, "turned", file)))[..., 0]
    assert (upright == np.array([[1, 2, 3], [4, 5, 6]]) * 40).all()


def test_broken_exif_is_told_and_taken_as_upright() -> None:
    file = encoded(Image.new("RGB", (4, 2), "red"), "PNG", exif=b"Exif\0\0nonsense here")
    with pytest.warns(UserWarning, match="EXIF block cannot be read"):
        assert picture(file).size == (4, 2)


def test_an_upright_rgb_image_is_returned_itself() -> None:
    image = Image.new("RGB", (4, 2), "red")
    assert picture(image) is image
    grey = Image.new("L", (4, 2), 9)
    assert picture(grey) is not grey
    assert grey.mode == "L"  # not modified
