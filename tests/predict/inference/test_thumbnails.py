import io

import numpy as np
import pytest
from PIL import Image

from shardstream.predict.inference.thumbnails import make_picture

PIXELS = np.full((8, 8, 3), (200, 40, 10), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)


def encode(pixels, image_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("image_format", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_is_the_very_bytes_of_the_record(make_record, image_format, media_type):
    encoded = encode(PIXELS, image_format)
    picture = make_picture(make_record(encoded=encoded, media_type=media_type), PIXELS, max_bytes=10_000)
    assert (picture.content, picture.media_type, picture.is_record) == (encoded, media_type, True)
    assert picture.data_uri.startswith(f"data:{media_type};base64,")


def test_raw_pixels_become_a_picture(make_record):
    picture = make_picture(make_record(encoded=PIXELS.tobytes()), PIXELS, max_bytes=10_000)
    assert (picture.media_type, picture.is_record) == ("image/webp", False)
    np.testing.assert_allclose(picture.pixels(), PIXELS, atol=8)


def test_a_large_photo_becomes_a_picture_of_what_the_model_saw(make_record):
    encoded = encode(NOISE, "JPEG", quality=95)
    picture = make_picture(
        make_record(encoded=encoded, media_type="image/jpeg"), PIXELS, max_bytes=len(encoded) - 1
    )
    assert (picture.media_type, picture.is_record) == ("image/webp", False)
    assert len(picture.content) < 2000 < len(encoded)
    np.testing.assert_allclose(picture.pixels(), PIXELS, atol=8)


def test_a_picture_takes_no_more_than_the_page_can_bear(make_record):
    smooth = np.asarray(Image.fromarray(NOISE[:40, :40]).resize((300, 300), Image.Resampling.BICUBIC))
    best = make_picture(make_record(), smooth, max_bytes=10**6).content
    smaller = make_picture(make_record(), smooth, max_bytes=len(best) * 2 // 3).content
    assert len(smaller) <= len(best) * 2 // 3


def test_even_noise_takes_no_more_than_the_page_can_bear(make_record):
    picture = make_picture(make_record(), NOISE, max_bytes=15_000)
    assert len(picture.content) <= 15_000
    assert picture.pixels().shape[0] >= 112


def test_a_very_large_picture_is_made_smaller_and_keeps_its_shape(make_record):
    picture = make_picture(make_record(), np.zeros((1000, 500, 3), np.uint8), max_bytes=1000)
    assert picture.pixels().shape == (384, 192, 3)


def test_what_exif_says_does_not_turn_a_picture(make_record):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(pixels, "JPEG", exif=exif)
    picture = make_picture(make_record(encoded=encoded, media_type="image/jpeg"), pixels, max_bytes=10_000)
    np.testing.assert_allclose(picture.pixels(), pixels, atol=8)
