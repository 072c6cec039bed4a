import io

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from PIL import Image

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.images.decode import decode, read_source
from shardstream.ingest.images.process import resize as resize_at_ingest
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.dataset import Dataset
from shardstream.train.data.pixels import make_image_decoder, resize


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colors with some grain."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 17 + seed), np.cos(y / 23), np.sin((x + y) / 31)], axis=-1)
    return np.clip(128 + 90 * waves + generator.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 92} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def settings(size: int | None, encoding: str = "jpeg", rule: str = "stretch") -> ImageSettings:
    return ImageSettings(size=size, resize=rule, encoding=encoding, quality=95)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("seed", range(3))
def test_stored_size_is_decoded_bit_for_bit(seed):
    encoded, stored = encode(photo(64, 64, seed), "JPEG"), settings(64)
    expected = simplejpeg.decode_jpeg(encoded, fastdct=False, fastupsample=False)
    assert (make_image_decoder(stored, 64)(tf.constant(encoded)).numpy() == expected).all()


def test_raw_pixels():
    pixels = photo(20, 20)
    encoded = tf.constant(pixels.tobytes())
    assert (make_image_decoder(settings(20, "raw"), 20)(encoded).numpy() == pixels).all()
    halved = make_image_decoder(settings(20, "raw"), 10)(encoded).numpy()
    assert np.abs(halved.astype(int) - resize_at_ingest(pixels, 10, "stretch")).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats(kind):
    pixels = photo(30, 30)
    assert (make_image_decoder(settings(None), 30)(tf.constant(encode(pixels, kind))).numpy() == pixels).all()


def test_the_first_frame_of_a_gif_and_one_channel():
    gray = Image.fromarray(photo(30, 30)).convert("L")
    for kind in ("GIF", "PNG"):
        file = io.BytesIO()
        gray.save(file, kind)
        found = make_image_decoder(settings(None), 30)(tf.constant(file.getvalue())).numpy()
        assert (found == np.asarray(gray)[..., np.newaxis]).all()


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    ("height", "width"), [(100, 100), (90, 61), (61, 90), (20, 20), (20, 90), (33, 7), (32, 32)]
)
def test_resizing_is_that_of_ingest(rule, height, width):
    pixels = photo(height, width)
    found = resize(tf.constant(pixels), 32, rule).numpy()
    assert np.abs(found.astype(int) - resize_at_ingest(pixels, 32, rule)).max() <= 1


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(640, 480), (333, 257), (1001, 700), (70, 64), (50, 40)])
def test_larger_originals_are_reduced_while_they_are_decoded(rule, height, width):
    encoded, stored = encode(photo(height, width), "JPEG"), settings(None, rule=rule)
    decoded = decode(read_source(encoded, ".jpg", max_pixels=1 << 24), min_size=64)
    expected = resize_at_ingest(decoded.rgb, 64, rule)
    difference = np.abs(make_image_decoder(stored, 64)(tf.constant(encoded)).numpy().astype(int) - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= 4


def test_a_size_has_to_be_given_where_images_differ(make_dataset):
    image = ImageSettings(size=None, resize="stretch", encoding="png", quality=95)
    data = Dataset(make_dataset(image=image))
    with pytest.raises(ConfigError, match="images of different sizes; image_size has to be given"):
        data.train_batches(8, seed=1)
    images, _ = next(iter(data.train_batches(8, seed=1, image_size=12)))
    assert images.shape == [8, 12, 12, 3]
