import io

import numpy as np
import pytest
from PIL import Image

from ingest.images import judge, perceptual_hash, resize
from ingest.metadata import ImageSettings


def settings(**changes) -> ImageSettings:
    return ImageSettings(**{"size": 32, "resize": "stretch", "encoding": "jpeg", "quality": 95} | changes)


def judged(data, image, suffix=".jpg"):
    return judge(data, suffix, image=image, max_pixels=10**6)


def test_a_clean_photo_of_the_right_size_keeps_its_bytes(photo):
    data = photo(1, size=(32, 32))
    result = judged(data, settings())
    assert (result.verdict, result.stored, result.size) == ("ok", data, (32, 32))
    assert judged(data, settings(size=None)).stored == data
    assert judged(data, settings(size=31)).stored != data


def test_originals_keep_size_and_bytes_unless_something_has_to_be_mended(photo):
    image = settings(size=None)
    assert judged(photo(1), image).stored == photo(1)
    webp = judged(photo(1, file_format="WEBP"), image, ".webp")
    assert webp.verdict == "repaired"
    assert Image.open(io.BytesIO(webp.stored)).format == "JPEG"
    assert webp.size == webp.source_size == (40, 60)


@pytest.mark.parametrize(("encoding", "tolerance"), [("jpeg", 5), ("png", 0), ("raw", 0)])
def test_what_is_stored_is_what_was_seen(photo, encoding, tolerance):
    seen = np.asarray(Image.open(io.BytesIO(photo(5))))
    stored = judged(photo(5), settings(encoding=encoding)).stored
    if encoding == "raw":
        found = np.frombuffer(stored, np.uint8).reshape(32, 32, 3)
    else:
        found = np.asarray(Image.open(io.BytesIO(stored)))
    assert np.abs(found.astype(int) - resize(seen, 32, "stretch")).mean() <= tolerance


def test_quality_decides_the_size(photo):
    sizes = [len(judged(photo(1), settings(quality=quality)).stored) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_the_shape_is_stretched_cropped_or_padded():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # The middle square.
    assert resize(wide, 12, "stretch")[:, :, 0].tolist() == [[0] * 4 + [200] * 4 + [0] * 4] * 12
    assert (resize(wide, 12, "crop") == 200).all()
    padded = resize(np.full((20, 60, 3), 200, np.uint8), 12, "pad")
    assert padded[:, 5, 0].tolist() == [0] * 4 + [200] * 4 + [0] * 4


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 300), (64, 64)])
def test_every_shape_becomes_square(shape, rule):
    assert resize(np.full((*shape, 3), 7, np.uint8), 16, rule).shape == (16, 16, 3)


def test_pictures_that_look_alike_have_hashes_that_are_close(photo):
    def hashed(data):
        return perceptual_hash(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))

    def distance(a, b):
        return (hashed(a) ^ hashed(b)).bit_count()

    large = photo(1, size=(400, 600), quality=95)
    small = Image.open(io.BytesIO(large)).resize((150, 100))
    again = io.BytesIO()
    small.save(again, "JPEG", quality=60)
    assert distance(large, again.getvalue()) <= 6
    assert min(distance(large, photo(seed, size=(400, 600))) for seed in range(2, 12)) > 12


def test_a_side_too_long_for_jpeg_is_refused():
    out = io.BytesIO()
    Image.new("P", (66_000, 2)).save(out, "PNG")  # A palette: cannot keep its bytes.
    result = judged(out.getvalue(), settings(size=None), ".png")
    assert (result.verdict, result.reason) == (
        "rejected",
        "too large: a JPEG has at most 65,500 pixels a side",
    )
    assert judged(out.getvalue(), settings(size=32), ".png").verdict == "repaired"
