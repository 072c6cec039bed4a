"""What a person sees in a file, whatever the file is."""

import contextlib
import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.images.decode import check_whole, decode, read_source
from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.png import is_whole

MAX_PIXELS = 1_000_000


def see(data: bytes, suffix: str = ".jpg", *, min_size: int = 0, max_pixels: int = MAX_PIXELS):
    return decode(read_source(data, suffix, max_pixels), min_size=min_size)


def is_clean(data: bytes, suffix: str = ".jpg") -> bool:
    source = read_source(data, suffix, MAX_PIXELS)
    return source.clean_size is not None and check_whole(source) is not None


def save(image: Image.Image, file_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Returns a picture with a different color in each corner: red, green / blue, white."""
    image = Image.new("RGB", (width, height))
    for box, color in {
        (0, 0, width // 2, height // 2): (250, 0, 0),
        (width // 2, 0, width, height // 2): (0, 250, 0),
        (0, height // 2, width // 2, height): (0, 0, 250),
        (width // 2, height // 2, width, height): (250, 250, 250),
    }.items():
        image.paste(color, box)
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
    assert_alike(seen.rgb, corners(), 8)  # The colors of JPEG bleed over the edges between the corners.
    assert (seen.height, seen.width) == (32, 48)
    assert f"turned upright (EXIF orientation {orientation})" in seen.repairs
    assert not is_clean(data)


def test_an_orientation_that_does_not_exist_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 9
    data = save(corners(), "JPEG", exif=exif)
    assert see(data).repairs == ()
    assert is_clean(data)


def test_deep_pictures_keep_their_brightness():
    deep = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    data = save(Image.fromarray(deep), "PNG")
    seen = see(data, ".png")
    assert np.array_equal(seen.rgb[:, :, 0], deep >> 8)
    assert seen.repairs == ("16 bits to 8",)
    assert not is_clean(data)


@pytest.mark.parametrize("photometric", [0, 1])
def test_deep_tiffs_in_which_0_is_white_are_no_negatives(photometric):
    deep = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    seen = see(save(Image.fromarray(deep), "TIFF", tiffinfo={262: photometric}), ".tif")
    assert np.array_equal(seen.rgb[:, :, 0], (deep if photometric else 65535 - deep) >> 8)


def test_a_palette_that_is_missing_is_said():
    data = save(corners().quantize(4), "PNG")
    start = data.index(b"PLTE") - 4
    with pytest.raises(ImageError, match="corrupt: no palette"):
        see(data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4], "big") :], ".png")


@pytest.mark.parametrize(("most", "white"), [(255, 255), (65_535, 65_535)])
def test_integers_of_32_bits_are_of_8_where_they_fit(most, white):
    levels = np.linspace(0, most, 64).astype(np.int32).reshape(8, 8)
    seen = see(save(Image.fromarray(levels), "TIFF"), ".tif")
    assert np.abs(seen.rgb[..., 0] - levels * 255 / white).max() <= 1
    assert seen.repairs[0] == ("32 bits to 8" if most == 255 else "16 bits to 8")


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_integers_that_use_few_of_their_16_bits_are_seen(bits):
    levels = np.linspace(0, (1 << bits) - 1, 64).astype(np.uint16).reshape(8, 8)
    for seen in (
        see(save(Image.fromarray(levels), "TIFF"), ".tif"),
        see(save(Image.fromarray(levels), "PNG"), ".png"),
    ):
        assert np.array_equal(seen.rgb[..., 0], levels >> (bits - 8))
        assert seen.repairs[0] == f"{bits} bits in 16 to 8"


def test_colors_of_16_bits_that_would_be_black_are_refused():
    import cv2

    levels = np.linspace(0, 4095, 192).astype(np.uint16).reshape(8, 8, 3)
    for suffix in (".png", ".tif"):
        data = cv2.imencode(suffix, levels)[1].tobytes()
        with pytest.raises(ImageError, match="use less than a sixteenth of their range"):
            see(data, suffix)


def test_measurements_are_refused():
    levels = np.linspace(7000, 9040, 64, dtype=np.float32).reshape(8, 8)
    with pytest.raises(
        ImageError, match="floating-point pixels from 7000 to 9040: nothing says what is white"
    ):
        see(save(Image.fromarray(levels), "TIFF"), ".tif")


def test_floating_point_is_white_at_1_or_at_255():
    ramp = np.linspace(0, 1, 32 * 48, dtype=np.float32).reshape(32, 48)
    for scale in (1, 255):
        seen = see(save(Image.fromarray(ramp * scale), "TIFF"), ".tif")
        assert np.array_equal(seen.rgb[:, :, 0], (ramp * 255).astype(np.uint8))
    endless = np.full((32, 48), np.inf, np.float32)
    with pytest.raises(ImageError, match="floating-point pixels that are not finite"):
        see(save(Image.fromarray(endless), "TIFF"), ".tif")


def planes(bits: int) -> bytes:
    """Returns an uncompressed TIFF of 4x4 with its three colors one after the other."""
    tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 2), (273, 200), (277, 3), (278, 4), (284, 2)]
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 3, {258: 150, 273: 170, 279: 186}[tag])
        if tag in {258, 273, 279}
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in sorted([*tags, (279, 0)])
    )
    size = 2 * bits
    data = b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + bytes(4)
    arrays = struct.pack("<3I", *[bits] * 3).ljust(20, b"\0")
    arrays += struct.pack("<3I", 200, 200 + size, 200 + 2 * size).ljust(16, b"\0") + struct.pack(
        "<3I", *[size] * 3
    )
    return data.ljust(150, b"\0") + arrays.ljust(50, b"\0") + bytes(3 * size)


def test_planes_of_16_bits_are_refused_as_pillow_shows_them_wrongly():
    assert see(planes(8), ".tif").rgb.shape == (4, 4, 3)
    with pytest.raises(ImageError, match="no decoder: a TIFF of more than 8 bits in planes"):
        see(planes(16), ".tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_seen_over_white(mode):
    image = corners().convert("RGBA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (0, 0, 4, 4))
    image.putalpha(alpha)
    image = image.quantize(16) if mode == "PA" else image.convert(mode)  # A palette with transparency.
    seen = see(save(image, "PNG"), ".png")
    assert (seen.rgb[4:] == 255).all()
    assert (seen.rgb[:4, :4] < 255).any(2).all()
    assert "transparency over white" in seen.repairs


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P of one color"])
def test_what_is_transparent_everywhere_is_no_white_square(mode):
    image = corners().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    options = {}
    if mode == "P of one color":
        image, options = Image.new("P", image.size, 3), {"transparency": 3}
        image.putpalette(range(48))
    elif mode == "P":
        image, options = corners().quantize(16), {"transparency": bytes(16)}
    else:
        image = image.convert(mode)
    with pytest.raises(ImageError, match="transparent everywhere"):
        see(save(image, "PNG", **options), ".png")


def test_cmyk_has_the_right_colors():
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
    data = save(corners(), file_format, **options)
    seen = see(data, f".{file_format[:4].lower()}")
    assert_alike(seen.rgb, corners(), 8)
    assert f"from {file_format}" in seen.repairs
    assert not is_clean(data)


def test_content_decides_and_not_the_name():
    data = save(corners(), "PNG")
    seen = see(data, ".jpg")
    assert_alike(seen.rgb, corners())
    assert seen.repairs == ("PNG named .jpg",)
    assert is_clean(data, ".jpg")
    assert see(save(corners(), "JPEG"), "").repairs == ("JPEG named without a suffix",)


def test_a_jpeg_that_is_cut_anywhere_in_its_pixels_is_refused(photo):
    data = photo(1, size=(64, 64))
    first_pixel = data.index(b"\xff\xda") + 14
    for end in range(first_pixel, len(data) - 4, 7):
        with pytest.raises(ImageError, match="corrupt JPEG"):
            see(data[:end])


def test_a_jpeg_with_a_gray_half_is_refused(photo):
    data = bytearray(photo(1, size=(200, 200)))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    with pytest.raises(ImageError, match="corrupt JPEG"):
        see(bytes(data))


def test_a_progressive_jpeg_without_its_last_scans_is_refused(photo):
    data = photo(1, size=(64, 64), progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    with pytest.raises(ImageError, match="corrupt JPEG"):
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
        assert not is_clean(junk)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text", "not an image: text"),
        (b"\xff\xd8\xff\xe0", "corrupt JPEG: not even its header can be read"),
        (b"\x89PNG\r\n\x1a\n", "corrupt PNG: not even its header can be read"),
        (b"\xff\x0a" + bytes(50), "no decoder: JPEG XL's bare stream; convert it to JPEG"),
        (b"II*\0" + bytes(50), "corrupt TIFF, or one of an unknown kind: not even its header can be read"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data, reason):
    with pytest.raises(ImageError, match=f"^{re.escape(reason)}"):
        see(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_with_more_pixels_than_allowed_is_refused(file_format):
    data = save(corners(100, 90), file_format)
    with pytest.raises(ImageError, match=r"too large: more than 8,999 pixels \(--max-pixels\)"):
        see(data, max_pixels=8_999)
    assert see(data, max_pixels=9_000).rgb.shape == (90, 100, 3)


def test_a_png_whose_header_lies_costs_no_memory():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="too large"):
        see(data, ".png")


def test_a_png_with_a_flipped_bit_is_refused_or_not_kept_as_it_is(photo):
    data = save(corners(), "PNG")
    assert is_clean(data)
    for position in range(8, len(data), 5):
        corrupt = bytearray(data)
        corrupt[position] ^= 4
        with contextlib.suppress(ImageError):
            assert not is_clean(bytes(corrupt))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(pixels: bytes, *extra: bytes, depth: int = 8, color: int = 2, interlace: int = 0) -> bytes:
    """Returns a PNG of 4x4."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, depth, color, 0, 0, interlace))
    packed = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + packed + chunk(b"IEND", b"")


ROWS = 4 * (b"\0" + bytes(range(12)))
TURNED = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (png(ROWS), True),
        (png(ROWS) + b"what follows does not matter", True),
        (png(ROWS, chunk(b"gAMA", bytes([0, 1, 134, 160]))), True),
        (png(4 * bytes(5), color=0), True),
        (png(ROWS + b"\0"), False),  # One byte too many.
        (png(ROWS, chunk(b"tRNS", bytes(6))), False),
        (png(4 * bytes(25), depth=16), False),
        (png(4 * bytes(17), color=6), False),
        (png(ROWS, chunk(b"eXIf", TURNED)), False),
        (png(ROWS, chunk(b"eXIf", TURNED.replace(b"\0\6", b"\0\1"))), True),
        (png(ROWS, chunk(b"tEXt", b"Comment\0nothing")), True),
        (png(ROWS, chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')), False),
        (png(ROWS, b"\0\0\0\1nOpeX\0\0\0\0"), False),  # A wrong checksum where nobody looks.
        (png(ROWS).replace(b"IHDR", b"JHDR"), False),
    ],
)
def test_a_png_is_kept_where_every_decoder_shows_the_same(data, clean):
    try:
        assert is_clean(data) == clean
    except ImageError:
        assert not clean


def test_a_png_with_too_few_pixels_is_not_whole():
    assert is_whole(png(ROWS))
    assert not is_whole(png(ROWS[:-1]))


def test_a_png_that_unpacks_to_more_than_it_says_is_not_unpacked():
    data = png(bytes(50_000_000))
    tracemalloc.start()
    assert not is_whole(data)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_large_jpeg_is_made_smaller_while_it_is_decoded(photo):
    data = photo(3, size=(800, 1200), quality=95)
    seen = see(data, min_size=100)
    assert (seen.height, seen.width) == (800, 1200)
    assert 100 <= seen.rgb.shape[0] < 400
    assert see(data, min_size=401).rgb.shape == (800, 1200, 3)
