import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shardstream.ingest.images.decode import decode, read_source
from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.process import process_image, resize
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.plain_stream import decode_image

SHARED = Path(__file__).resolve().parents[4] / "shared/data"
ROOMS = SHARED / "rooms3"
ORIGINAL = ImageSettings(size=None, resize="stretch", encoding="jpeg", quality=95)
real_photos = pytest.mark.skipif(not ROOMS.is_dir(), reason="no real photos here")


def pixels(encoded: bytes, stored: ImageSettings, size: int) -> np.ndarray:
    out = np.empty((size, size, 3), np.uint8)
    PictureDecoder(stored=stored, image_size=size, resize=stored.resize).decode(memoryview(encoded), out)
    return out


def stored_at(size: int, **settings: object) -> ImageSettings:
    return dataclasses.replace(ORIGINAL, size=size, **settings)


def photos(pattern: str, num: int) -> list[bytes]:
    paths = sorted(ROOMS.glob(pattern))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // num)]]


@real_photos
def test_stored_pictures_are_decoded_as_tensorflow_does_it_accurately():
    """Bit for bit: libjpeg-turbo's own interface and TensorFlow's copy of it give the same pixels."""
    stored = stored_at(300)
    for photo in photos("*/*.jp*g", 60):
        encoded = process_image(photo, ".jpg", image=stored, max_pixels=1 << 30).stored
        assert (pixels(encoded, stored, 300) == decode_image(tf.constant(encoded), stored).numpy()).all()


@real_photos
@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
def test_originals_become_what_ingest_would_have_stored(rule):
    """Those that are not twice as large as the model wants them."""
    original, png = (dataclasses.replace(ORIGINAL, resize=rule), stored_at(160, resize=rule, encoding="png"))
    for photo in photos("food/*.jpg", 20):
        stored = process_image(photo, ".jpg", image=png, max_pixels=1 << 30).stored
        assert (pixels(photo, original, 160) == pixels(stored, png, 160)).all()


@real_photos
@pytest.mark.parametrize(
    ("pattern", "size"), [("food/*.jpeg", 300), ("interior/*.jpg", 300), ("interior/*.jpg", 96)]
)
def test_shrinking_while_decoding_looks_like_antialiased_resizing_of_the_whole(pattern, size):
    """In mean levels of 255. The food has 12 megapixels, and is made by an eighth while it is decoded."""
    num_shrunk = 0
    for photo in photos(pattern, 10):
        whole = decode(read_source(photo, ".jpg", 1 << 30)).rgb
        shrunk = pixels(photo, ORIGINAL, size).astype(float)
        antialiased = tf.image.resize(whole, [size, size], antialias=True).numpy()
        assert np.abs(shrunk - antialiased).mean() < 4
        num_shrunk += not np.array_equal(shrunk, resize(whole, size, "stretch"))
    assert num_shrunk > 2


FORMATS = [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB")]


@pytest.mark.parametrize(("file_format", "mode"), FORMATS)
def test_other_formats_are_what_people_see(file_format, mode):
    picture = Image.new(mode, (40, 20), "red" if mode != "L" else 90)
    if mode == "RGBA":
        picture.putalpha(0)
    file = io.BytesIO()
    picture.save(file, file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    seen = {"RGBA": (255, 255, 255), "L": (90, 90, 90)}.get(mode, (255, 0, 0))
    assert (pixels(file.getvalue(), ORIGINAL, 16) == seen).all()


def test_a_grey_jpeg_of_the_right_size_has_three_equal_channels():
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "JPEG", quality=100)
    grey = pixels(file.getvalue(), stored_at(16), 16)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0].astype(int).ravel() - np.arange(256)).max() <= 2


@pytest.mark.parametrize("size", [16, 8])
def test_raw_pixels(size):
    stored = stored_at(16, encoding="raw")
    assert (pixels(bytes([7]) * 16 * 16 * 3, stored, size) == 7).all()
    with pytest.raises(ImageError, match="5 bytes of raw pixels, expected 16 x 16 x 3"):
        pixels(b"12345", stored, size)


@pytest.mark.parametrize("stored", [ORIGINAL, stored_at(16)])
def test_what_is_no_picture_or_half_of_one_is_refused(stored):
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    for encoded in (b"not a picture", file.getvalue()[:-200]):
        with pytest.raises(ImageError):
            pixels(encoded, stored, 16)
