"""Colors of other profiles become those that a person sees."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from shardstream.ingest.images.icc import name_of_profile, to_srgb
from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import ImageSettings

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def s15(value):
    return struct.pack(">i", round(value * 65536))


def wide_profile():
    """A matrix profile with the primaries of Display P3 (adapted to D50) and a gamma of 2.2."""
    colorants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
        b"wtpt": (0.96420, 1.0, 0.82491),
    }
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(s15, xyz)) for name, xyz in colorants.items()}
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Wide\0" + bytes(78) + b"\0"
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, offset + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = offset + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + s15(0.9642) + s15(1.0) + s15(0.82491)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


WIDE = wide_profile()


def test_only_profiles_that_change_what_is_seen_have_a_name():
    assert name_of_profile(WIDE) == "Wide"
    assert [name_of_profile(profile) for profile in (SRGB, b"", b"x" * 200, WIDE[:130])] == [""] * 4


def test_red_of_a_wide_profile_is_more_than_srgb_has():
    rgb = np.array([[[200, 30, 30], [128, 128, 128]]], np.uint8)
    red, gray = to_srgb(rgb, WIDE)[0].astype(int)
    assert red[0] > 208
    assert red[1] < 30
    assert np.abs(gray - 128).max() <= 2


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [None, 32])
def test_every_format_is_converted(file_format, size):
    image = Image.new("RGB", (32, 32), (200, 30, 30))
    out = io.BytesIO()
    image.save(
        out, file_format, icc_profile=WIDE, **({"quality": 95} if file_format in {"JPEG", "WEBP"} else {})
    )
    settings = ImageSettings(size=size, resize="stretch", encoding="png", quality=95)
    suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(file_format, f".{file_format.lower()}")
    processed = process_image(out.getvalue(), suffix, image=settings, max_pixels=10_000)
    assert "colors of Wide to sRGB" in processed.reason
    red = np.asarray(Image.open(io.BytesIO(processed.stored)))[16, 16].astype(int)
    assert red[0] > 205
    assert red[1] < 30


def test_an_image_with_a_profile_of_srgb_keeps_its_bytes():
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(out, "JPEG", icc_profile=SRGB)
    settings = ImageSettings(size=None, resize="stretch", encoding="jpeg", quality=95)
    processed = process_image(out.getvalue(), ".jpg", image=settings, max_pixels=10_000)
    assert (processed.verdict, processed.stored) == ("ok", out.getvalue())
