import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from predict.gallery import Gallery, make_picture
from predict.prediction import Prediction, Record

PIXELS = np.full((8, 8, 3), (200, 40, 10), np.uint8)


def record(position=0, label=0, encoded=b"\x89PNG\r\n\x1a\n", media_type="image/png"):
    return Record(
        shard="s",
        position=position,
        label=label,
        source_path="a.jpg",
        source_sha256="",
        source_height=1,
        source_width=1,
        encoded=encoded,
        media_type=media_type,
    )


def encode(pixels, image_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def shown(gallery):
    return [entry.prediction.record.position for entry in gallery.pictures()]


def offered(size, certainties):
    """Offers a picture of class 0 for each probability of class 0; below 0.5 it is wrong."""
    gallery = Gallery(size)
    for position, certainty in enumerate(certainties):
        probabilities = np.array([certainty, 1 - certainty], np.float32)
        gallery.offer(Prediction(record(position), probabilities), PIXELS)
    return gallery


@pytest.mark.parametrize(
    ("size", "certainties", "order"),
    [
        (10, [0.9, 0.1, 0.6, 0.4], [1, 3, 2, 0]),
        (2, [0.9, 0.1, 0.6, 0.4], [1, 3]),
        (3, [0.9, 0.1, 0.6, 0.4], [1, 3, 2]),
        (3, [0.8, 0.8, 0.8, 0.8], [0, 1, 2]),  # Of equals the earlier ones.
        (0, [0.9, 0.1], []),
        (5, [], []),
    ],
)
def test_wrong_ones_first_then_the_highest_loss(size, certainties, order):
    assert shown(offered(size, certainties)) == order


def test_a_wrong_one_comes_before_a_right_one_of_higher_loss():
    gallery = Gallery(2)
    # Three classes: 0.4 is right with loss 0.92, and 0.45 is wrong with loss 0.8.
    gallery.offer(Prediction(record(0), np.array([0.4, 0.3, 0.3], np.float32)), PIXELS)
    gallery.offer(Prediction(record(1), np.array([0.45, 0.55, 0.0], np.float32)), PIXELS)
    assert shown(gallery) == [1, 0]


def test_memory_does_not_grow_with_the_number_offered():
    def offer(count):
        for position in range(count):
            encoded = b"\x89PNG\r\n\x1a\n" + position.to_bytes(8, "big") * 1000
            probabilities = np.array([position / 3000, 1 - position / 3000], np.float32)
            gallery.offer(Prediction(record(3000 - position, encoded=encoded), probabilities), PIXELS)

    gallery = Gallery(10)
    tracemalloc.start()
    offer(100)
    before = tracemalloc.get_traced_memory()[0]
    offer(2000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000  # 2,000 pictures of 8 kB would be 16 MB.


@pytest.mark.parametrize(("image_format", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_is_the_very_bytes_of_the_record(image_format, media_type):
    encoded = encode(PIXELS, image_format)
    picture = make_picture(record(encoded=encoded, media_type=media_type), PIXELS)
    assert (picture.content, picture.media_type, picture.is_record) == (encoded, media_type, True)
    assert picture.data_uri.startswith(f"data:{media_type};base64,")


def test_raw_pixels_become_a_lossless_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = make_picture(record(encoded=pixels.tobytes(), media_type=None), pixels)
    assert not picture.is_record
    np.testing.assert_array_equal(picture.pixels(), pixels)


def test_a_large_photo_becomes_a_picture_of_what_the_model_saw():
    encoded = encode(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8), "JPEG", quality=95)
    picture = make_picture(record(encoded=encoded, media_type="image/jpeg"), PIXELS)
    assert (picture.media_type, picture.is_record) == ("image/jpeg", False)
    assert len(picture.content) < 2000 < len(encoded)
    np.testing.assert_allclose(picture.pixels(), PIXELS, atol=8)


def test_what_exif_says_does_not_turn_a_picture():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(pixels, "JPEG", exif=exif)
    picture = make_picture(record(encoded=encoded, media_type="image/jpeg"), pixels)
    np.testing.assert_allclose(picture.pixels(), pixels, atol=8)
