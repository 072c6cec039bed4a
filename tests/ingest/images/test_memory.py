"""What a worker takes of memory for one large picture, in a process of its own."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import ImageSettings

SIDE = 4000
STRIPS = 32_000_000  # Bytes, of any picture, for what is made strip by strip.
EXIF = Image.Exif()
EXIF[0x0112] = 6

JUDGE = """
import sys
from pathlib import Path
from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import ImageSettings

import cv2

data = Path(sys.argv[1]).read_bytes()
image = ImageSettings(size=int(sys.argv[2]) or None, resize="stretch", encoding="jpeg", quality=95)
resident = lambda name: next(
    int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name)
)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
print(process_image(data, Path(sys.argv[1]).suffix, image=image, max_pixels=10**8).verdict, resident("VmHWM") - before)
"""


def draw(mode: str) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 4 if mode == "RGBA" else 3), np.uint8)
    image = Image.fromarray(coarse).resize((SIDE, SIDE))
    return image if image.mode == mode else image.convert(mode)


KINDS = {
    "clean.jpg": (lambda: draw("RGB"), {}),
    "progressive.jpg": (lambda: draw("RGB"), {"progressive": True, "subsampling": 0}),
    "turned.jpg": (lambda: draw("RGB"), {"exif": EXIF}),
    "cmyk.jpg": (lambda: draw("CMYK"), {}),
    "clean.png": (lambda: draw("RGB"), {"compress_level": 1}),
    "clear.png": (lambda: draw("RGBA"), {"compress_level": 1}),
    "turned.png": (lambda: draw("RGB"), {"compress_level": 1, "exif": EXIF}),
    "palette.png": (lambda: draw("RGB").quantize(), {"compress_level": 1}),
    "lzw.tif": (lambda: draw("RGB"), {"compression": "tiff_lzw"}),
    "float.tif": (lambda: draw("F"), {}),
    "one.gif": (lambda: draw("L"), {}),
}


@pytest.mark.parametrize(
    ("name", "size", "bytes_per_pixel"),
    [
        ("clean.jpg", 0, 0.1),  # Seen at an eighth.
        ("progressive.jpg", 0, 6),  # libjpeg keeps 2 bytes for each of three samples.
        ("turned.jpg", 0, 6),
        ("turned.jpg", 300, 0.1),
        ("cmyk.jpg", 0, 7),
        ("cmyk.jpg", 300, 0.1),
        ("clean.png", 0, 4),  # Pillow's RGB has 4 bytes.
        ("clear.png", 0, 7),
        ("turned.png", 0, 7),
        ("palette.png", 0, 4),
        ("lzw.tif", 0, 7),
        ("float.tif", 0, 7),
        ("one.gif", 0, 4),
    ],
)
def test_a_picture_takes_few_bytes_a_pixel(name, size, bytes_per_pixel, tmp_path):
    make, options = KINDS[name]
    make().save(tmp_path / name, **options)
    command = [sys.executable, "-c", JUDGE, str(tmp_path / name), str(size)]
    verdict, num_bytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert verdict in {"ok", "repaired"}
    assert int(num_bytes) < bytes_per_pixel * SIDE**2 + STRIPS


@pytest.mark.parametrize(
    ("file_format", "options", "megapixels"),
    [
        ("WEBP", {}, 48),
        ("AVIF", {}, 48),
        ("JPEG2000", {}, 33),
        ("JPEG", {"progressive": True, "subsampling": 0, "exif": EXIF}, 97),
        ("PNG", {}, 219),  # Kept as it is, so never RGB.
        ("BMP", {}, 87),  # With the file itself.
    ],
)
def test_what_cannot_be_held_in_1_gb_is_refused_with_the_reason(
    file_format, options, megapixels, monkeypatch
):
    # The same with the thousandth of the limit, and of the picture.
    monkeypatch.setattr("shardstream.ingest.images.image_errors._WORKER_BYTES", 1_000_000)
    monkeypatch.setattr("shardstream.ingest.images.image_errors._OWN_BYTES", 120_000)
    image = ImageSettings(size=None, resize="stretch", encoding="jpeg", quality=95)

    def judged(num_pixels):
        out = io.BytesIO()
        Image.new("RGB", (100, round(num_pixels / 100)), (90, 120, 30)).save(out, file_format, **options)
        return process_image(out.getvalue(), f".{file_format.lower()}", image=image, max_pixels=10**8)

    assert judged(megapixels * 930).verdict in {"ok", "repaired"}
    too_large = judged(megapixels * 1070)
    assert too_large.verdict == "rejected"
    assert too_large.reason == "too large: 0.00 GB to decode it, a worker keeps to 1; make it smaller"
