"""What a person sees in a file, whatever the file is."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ingest.decode import RejectedError, decode

MAX_PIXELS = 1_000_000


def see(data: bytes, suffix: str = ".jpg", **options):
    return decode(data, suffix, **{"min_size": 0, "max_pixels": MAX_PIXELS} | options)


def save(image: Image.Image, file_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Returns a picture with a different colour in each corner: red, green / blue, white."""
    image = Image.new("RGB", (width, height))
    for box, colour in {
        (0, 0, width // 2, height // 2): (250, 0, 0),
        (width // 2, 0, width, height // 2): (0, 250, 0),
        (0, height // 2, width // 2, height): (0, 0, 250),
        (width // 2, height // 2, width, height): (250, 250, 250),
    }.items():
        image.paste(colour, box)
    return image


def assert_alike(rgb: np.ndarray, image: Image.Image, tolerance: float = 3):
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).mean() < tolerance


# How a camera that was held otherwise stores the upright picture, for each orientation.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_rotated_photos_come_out_upright(orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if file_format in {"JPEG", "WEBP"} else {}
    data = save(corners().transpose(STORED[orientation]), file_format, exif=exif, **options)
    seen = see(data, f".{file_format.lower()}")
    assert_alike(seen.rgb, corners(), 8)  # The colours of JPEG bleed over the edges between the corners.
    assert (seen.height, seen.width) == (32, 48)
    assert f"turned upright (EXIF orientation {orientation})" in seen.repairs
    assert seen.clean_format is None


def test_an_orientation_that_does_not_exist_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 9
    seen = see(save(corners(), "JPEG", exif=exif))
    assert seen.repairs == ()
    assert seen.clean_format == "JPEG"


def test_deep_pictures_keep_their_brightness():
    deep = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    seen = see(save(Image.fromarray(deep), "PNG"), ".png")
    assert np.array_equal(seen.rgb[:, :, 0], deep >> 8)
    assert seen.repairs == ("16 bits to 8",)
    assert seen.clean_format is None


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_seen_over_white(mode):
    image = corners().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image = image.quantize(16) if mode == "PA" else image.convert(mode)  # A palette with transparency.
    seen = see(save(image, "PNG"), ".png")
    assert (seen.rgb == 255).all()
    assert "transparency over white" in seen.repairs


def test_cmyk_has_the_right_colours():
    seen = see(save(corners().convert("CMYK"), "JPEG", quality=95))
    assert_alike(seen.rgb, corners(), 8)
    assert seen.repairs == ("CMYK to RGB",)


def test_the_first_frame_of_an_animation_counts():
    other = Image.new("RGB", (48, 32), (9, 99, 9))
    data = save(corners(), "GIF", save_all=True, append_images=[other])
    seen = see(data, ".gif")
    assert_alike(seen.rgb, corners())
    assert "first frame of several" in seen.repairs


@pytest.mark.parametrize("file_format", ["BMP", "WEBP", "TIFF", "AVIF", "GIF", "JPEG2000"])
def test_formats_that_tensorflow_reads_wrongly_or_not_at_all(file_format):
    options = {"quality": 95} if file_format in {"WEBP", "AVIF"} else {}
    seen = see(save(corners(), file_format, **options), f".{file_format[:4].lower()}")
    assert_alike(seen.rgb, corners(), 8)
    assert f"from {file_format}" in seen.repairs
    assert seen.clean_format is None


def test_content_decides_and_not_the_name():
    seen = see(save(corners(), "PNG"), ".jpg")
    assert_alike(seen.rgb, corners())
    assert seen.repairs == ("PNG named .jpg",)
    assert seen.clean_format == "PNG"
    assert see(save(corners(), "JPEG"), "").repairs == ("JPEG named without a suffix",)


def test_a_jpeg_that_is_cut_anywhere_in_its_pixels_is_refused(photo):
    data = photo(1, size=(64, 64))
    first_pixel = data.index(b"\xff\xda") + 14
    for end in range(first_pixel, len(data) - 4, 7):
        with pytest.raises(RejectedError, match="damaged JPEG"):
            see(data[:end])


def test_a_jpeg_with_a_grey_half_is_refused(photo):
    data = bytearray(photo(1, size=(200, 200)))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    with pytest.raises(RejectedError, match="damaged JPEG"):
        see(bytes(data))


def test_a_progressive_jpeg_without_its_last_scans_is_refused(photo):
    data = photo(1, size=(64, 64), progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    with pytest.raises(RejectedError, match="damaged JPEG"):
        see(data[: scans[-1]])


def test_harmless_junk_in_a_jpeg_is_left_out(photo):
    data = photo(1)
    tables = data.index(b"\xff\xdb")
    clean = see(data)
    for junk in (
        data[:tables] + b"\x00\x01\x02" + data[tables:],  # Between two segments.
        data[:-2],  # No end mark.
        data[:-2] + bytes(40) + data[-2:],  # Padding.
    ):
        seen = see(junk)
        assert np.array_equal(seen.rgb, clean.rgb)
        assert seen.repairs == ("left out junk between the segments",)
        assert seen.clean_format is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text", "not a picture: it starts with b'hello, I'"),
        (b"\xff\xd8\xff\xe0", "damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG: not even its header can be read"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(50), "no decoder: HEIC; convert it to JPEG"),
        (b"\xff\x0a" + bytes(50), "no decoder: JPEG XL's bare stream; convert it to JPEG"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data, reason):
    with pytest.raises(RejectedError, match=f"^{reason}"):
        see(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_with_more_pixels_than_allowed_is_refused(file_format):
    data = save(corners(100, 90), file_format)
    with pytest.raises(RejectedError, match=r"too large: more than 8,999 pixels \(--max-pixels\)"):
        see(data, max_pixels=8_999)
    assert see(data, max_pixels=9_000).rgb.shape == (90, 100, 3)


def test_a_png_whose_header_lies_costs_no_memory():
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    with pytest.raises(RejectedError, match="too large"):
        see(data, ".png")


def test_a_png_with_a_flipped_bit_is_refused_or_not_kept_as_it_is(photo):
    data = save(corners(), "PNG")
    assert see(data, ".png").clean_format == "PNG"
    for position in range(8, len(data), 5):
        damaged = bytearray(data)
        damaged[position] ^= 4
        with contextlib.suppress(RejectedError):
            assert see(bytes(damaged), ".png").clean_format is None


def test_a_large_jpeg_is_made_smaller_while_it_is_decoded(photo):
    data = photo(3, size=(800, 1200), quality=95)
    seen = see(data, min_size=100)
    assert (seen.height, seen.width) == (800, 1200)
    assert 100 <= seen.rgb.shape[0] < 400
    assert see(data, min_size=401).rgb.shape == (800, 1200, 3)
