import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from splitaudit.data.decoding import decode_images
from splitaudit.errors import DataError

from .data_files import encode


def decode(files: list[bytes], size: int | None = None) -> tuple[torch.Tensor, tuple[str, ...]]:
    return decode_images(((f"file {index}", data) for index, data in enumerate(files)), len(files), size)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_the_pixels_back(pixels: Any, form: str, channels: int) -> None:
    images = pixels(3, 5, 7, channels)
    decoded, notes = decode([encode(image, form) for image in images])
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert np.array_equal(decoded.permute(0, 2, 3, 1).numpy(), images)
    assert notes == ()


def test_jpeg_is_as_pillow_decodes_it(pixels: Any) -> None:
    data = encode(pixels(1)[0], "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    assert np.array_equal(decode([data])[0][0].numpy(), expected)


def test_a_photograph_taken_sideways_stands_upright(pixels: Any) -> None:
    upright = Image.fromarray(pixels(1, 5, 7)[0])
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = 8  # to be shown turned by 90 degrees against the clock
    sideways = saved(upright.transpose(Image.Transpose.ROTATE_270), "PNG", exif=orientation)
    decoded, notes = decode([sideways, saved(upright, "PNG")])
    assert torch.equal(decoded[0], decoded[1])
    assert notes == ()


def test_a_note_beside_the_pixels_that_cannot_be_read_is_none(pixels: Any) -> None:
    image = pixels(1, 5, 7)[0]
    decoded, _ = decode([saved(Image.fromarray(image), "PNG", exif=b"Exif\0\0no TIFF header")])
    assert np.array_equal(decoded[0].permute(1, 2, 0).numpy(), image)


def test_if_one_image_is_rgb_all_are(pixels: Any) -> None:
    grey, rgb = pixels(2, channels=1), pixels(1)
    decoded, notes = decode([encode(grey[0]), encode(rgb[0]), encode(grey[1])])
    assert decoded.shape == (3, 3, 8, 8)
    assert np.array_equal(decoded[0, 2].numpy(), grey[0, :, :, 0])
    assert notes == ("grey repeated to RGB (2 of 3 images)",)


def test_a_palette_is_looked_up(pixels: Any) -> None:
    palette = Image.fromarray(pixels(1)[0]).convert("P", palette=Image.Palette.ADAPTIVE)
    decoded, _ = decode([saved(palette, "PNG")])
    assert np.array_equal(decoded[0].permute(1, 2, 0).numpy(), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_noted(pixels: Any, mode: str) -> None:
    picture = Image.fromarray(pixels(1)[0]).convert(mode)
    decoded, notes = decode([saved(picture, "PNG")])
    assert decoded.shape[1] == (3 if mode == "RGBA" else 1)
    assert notes == ("transparency dropped (1 of 1 images)",)


def test_images_of_different_sizes_need_a_size(pixels: Any) -> None:
    files = [encode(pixels(1, 8, 8)[0]), encode(pixels(1, 6, 9)[0])]
    with pytest.raises(DataError, match=r"6x9 and 8x8.*file 1.*data\.size"):
        decode(files)
    decoded, notes = decode(files, size=8)
    assert decoded.shape == (2, 3, 8, 8)
    assert notes == ("resized 2 different sizes -> 8x8 (bilinear, antialiased)",)


def test_a_size_that_all_have_changes_nothing(pixels: Any) -> None:
    images = pixels(2)
    decoded, notes = decode([encode(image) for image in images], size=8)
    assert np.array_equal(decoded.permute(0, 2, 3, 1).numpy(), images)
    assert notes == ()
    assert decode([encode(image) for image in images], size=4)[1] == ("resized 8x8 -> 4x4 (bilinear, antialiased)",)


def test_sixteen_bits_are_refused() -> None:
    deep = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"file 0.*more than 8 bits"):
        decode([saved(deep, "PNG")])


def test_sixteen_bits_a_colour_are_refused() -> None:
    """Pillow opens them as if they had 8: of 12 bits in 16 hardly anything would be left."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header, rows = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), (b"\0" + b"\x0f\xff" * 6) * 2
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"file 0.*more than 8 bits"):
        decode([b"\x89PNG\r\n\x1a\n" + b"".join(parts)])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_broken_bytes_are_named(pixels: Any, form: str) -> None:
    good = encode(pixels(1, 32, 32)[0], form)
    for bad in (good[: len(good) // 2], b"no image", b""):
        with pytest.raises(DataError, match="file 1"):
            decode([good, bad])
