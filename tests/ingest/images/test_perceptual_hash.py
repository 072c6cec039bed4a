import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from shardstream.ingest.images.perceptual_hash import hash_gray, hash_rgb
from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import ImageSettings

ROOMS = Path(__file__).resolve().parents[4] / "shared/data/rooms3"


def hashed(data: bytes, size: int | None = None, rule: str = "stretch") -> int:
    image = ImageSettings(size=size, resize=rule, encoding="jpeg", quality=95)
    found = process_image(data, ".jpg", image=image, max_pixels=10**8).perceptual_hash
    assert found is not None
    return found


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def again(data: bytes, share: float = 1, file_format: str = "JPEG", **options) -> bytes:
    """Returns the picture upright, of a `share` of the sides, encoded once more."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    out = io.BytesIO()
    image.resize((int(image.width * share), int(image.height * share))).save(out, file_format, **options)
    return out.getvalue()


def test_a_picture_has_the_same_hash_however_it_is_stored(photo):
    data = photo(1, size=(301, 463), quality=95)
    original = hashed(data)
    for size, rule in ((300, "stretch"), (64, "stretch"), (128, "crop"), (128, "pad")):
        assert distance(hashed(data, size, rule), original) <= 4
    assert distance(hashed(again(data, file_format="PNG")), original) <= 2
    assert distance(hashed(again(data, 0.4, quality=60)), original) <= 4
    assert min(distance(hashed(photo(seed, size=(301, 463))), original) for seed in range(2, 12)) > 12


@pytest.mark.parametrize("cell", [2, 4, 8])
def test_a_small_gray_picture_has_the_hash_of_the_large_one(cell, photo):
    image = Image.open(io.BytesIO(photo(3, size=(397, 533), quality=95)))  # Not whole cells.
    small = np.asarray(image.convert("L").reduce(cell))
    assert distance(hash_gray(small, cell, 397, 533), hash_rgb(np.asarray(image))) <= 2


def test_the_hash_is_a_property_of_the_pixels_to_the_last_bit(photo):
    # Changing it makes the hashes of all existing datasets worthless.
    ramp = np.arange(70 * 90, dtype=np.uint32).reshape(70, 90) ** 2 % 251
    assert f"{hash_gray(ramp.astype(np.uint8), 1, 70, 90):016x}" == "d983598208a348a7"


def test_a_turned_photo_has_the_hash_of_the_upright_one(photo):
    upright = photo(5, size=(200, 300), quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.open(io.BytesIO(upright)).transpose(Image.Transpose.ROTATE_90)
    out = io.BytesIO()
    lying.save(out, "JPEG", quality=95, exif=exif)
    for size in (None, 64):
        assert distance(hashed(out.getvalue(), size), hashed(upright, size)) <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (7, 7), (129, 2)])
def test_every_shape_has_a_hash(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert 0 <= hash_rgb(rgb) < 1 << 64


@pytest.mark.skipif(not ROOMS.is_dir(), reason="the collection of photos is not there")
def test_photos_keep_their_hash_at_another_size_and_quality_and_differ_from_others():
    photos = [path.read_bytes() for path in sorted(ROOMS.glob("*/*"))[::9]]
    hashes = [hashed(data) for data in photos]
    assert (
        max(
            distance(hashed(again(data, 0.55, quality=70)), found)
            for data, found in zip(photos, hashes, strict=True)
        )
        <= 6
    )
    assert max(distance(hashed(data, 300), found) for data, found in zip(photos, hashes, strict=True)) <= 4
    others = [distance(a, b) for number, a in enumerate(hashes) for b in hashes[:number]]
    assert sum(found <= 10 for found in others) <= 1
