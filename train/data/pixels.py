"""From the bytes of a record to the pixels that the model sees, inside the graph."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import encode_entries, encode_example
from shardstream.ingest.images.settings import MAX_STORED_SIZE, ImageSettings, Resize
from shardstream.train.data.arguments import whole_number

# Increase with every change here that changes pixels: disk caches are then decoded again.
VERSION = 1
_JPEG_START = b"\xff\xd8\xff"
# Factors by which libjpeg can downscale a JPEG while decoding, at less than the full cost.
_RATIOS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExampleDecoder:
    """Decodes serialized tf.train.Examples.

    Attributes:
        image_key: Feature that holds the encoded image.
        label_key: Feature that holds the label.
        stored: Image settings of the dataset.
        image_size: Height and width of the decoded images.
        filename_key: Feature that holds the file name, if there is one.
        with_keys: Whether to return the file name too.
        with_records: Whether to return the serialized example too, last.
    """

    image_key: str
    label_key: str
    stored: ImageSettings
    image_size: int
    filename_key: str | None = "image/filename"
    with_keys: bool = False
    with_records: bool = False

    @classmethod
    def make(
        cls,
        info: DatasetInfo,
        image_size: int | None = None,
        *,
        with_keys: bool = False,
        with_records: bool = False,
    ) -> "ExampleDecoder":
        """Returns the decoder of a dataset; images keep their stored size unless `image_size` is given.

        Raises:
            ConfigError: The size is not positive, or the images have no common size and none is given.
        """
        size = info.image.size if image_size is None else image_size
        if size is None:
            raise ConfigError(f"{info.data_dir}: images of different sizes; image_size has to be given")
        size = whole_number("image_size", size, least=1, most=MAX_STORED_SIZE)
        return cls(
            image_key=info.image_key,
            label_key=info.label_key,
            stored=info.image,
            image_size=size,
            filename_key=info.filename_key,
            with_keys=with_keys,
            with_records=with_records,
        )

    @property
    def placeholder(self) -> bytes:
        """A serialized example of a black image, which can always be decoded."""
        size = self.stored.size or 1
        image = bytes(size * size * 3)
        if self.stored.encoding != "raw":
            image = tf.io.encode_jpeg(tf.zeros([size, size, 3], tf.uint8)).numpy()
        return encode_example(encode_entries({self.image_key: image, self.label_key: 0}))

    @property
    def decode_image(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Decodes one encoded image to uint8 [image_size, image_size, 3], RGB."""
        return make_image_decoder(self.stored, self.image_size)

    def __call__(self, serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns image uint8 [image_size, image_size, 3] and label int32 [], and the file name with `with_keys`."""
        features: dict[str, Any] = {
            self.image_key: tf.io.FixedLenFeature([], tf.string),
            self.label_key: tf.io.FixedLenFeature([], tf.int64),
        }
        if self.with_keys and self.filename_key:
            features[self.filename_key] = tf.io.FixedLenFeature([], tf.string, default_value="")
        example = tf.io.parse_single_example(serialized, features)
        keys = (example.get(self.filename_key, tf.constant("")),) if self.with_keys else ()
        image = self.decode_image(example[self.image_key])
        records = (serialized,) if self.with_records else ()
        return (image, tf.cast(example[self.label_key], tf.int32), *keys, *records)


def make_image_decoder(stored: ImageSettings, image_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from one encoded image to uint8 [image_size, image_size, 3], RGB."""
    shape = [image_size, image_size, 3]

    def decode_stored_size(encoded: tf.Tensor) -> tf.Tensor:
        if stored.encoding == "raw":
            return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
        # The operation decodes PNG as well.
        return tf.ensure_shape(_decode_jpeg(encoded, 1), shape)

    def decode_and_resize(encoded: tf.Tensor) -> tf.Tensor:
        if stored.encoding == "raw":
            pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [stored.size, stored.size, 3])
        else:
            pixels = _decode_any(encoded, image_size)
        return tf.ensure_shape(resize(pixels, image_size, stored.resize), shape)

    return decode_stored_size if stored.size == image_size else decode_and_resize


def decode_images(
    encoded: Sequence[bytes], stored: ImageSettings, *, image_size: int, resize: Resize
) -> np.ndarray:
    """Decodes stored images of a dataset exactly as in training.

    Args:
        encoded: The stored bytes of each image.
        stored: Image settings of the dataset.
        image_size: Height and width of the model input.
        resize: How images of another size become square.

    Returns:
        uint8 [len(encoded), image_size, image_size, 3], RGB.
    """
    if not encoded:
        return np.empty((0, image_size, image_size, 3), np.uint8)
    decode = _decode_all(dataclasses.replace(stored, resize=resize), image_size)
    return decode(tf.constant(encoded)).numpy()


@functools.lru_cache(maxsize=8)
def _decode_all(stored: ImageSettings, image_size: int) -> Any:
    """Returns the traced function from string [n] to uint8 [n, image_size, image_size, 3]."""
    decode = make_image_decoder(stored, image_size)
    image = tf.TensorSpec([image_size, image_size, 3], tf.uint8)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_all(encoded: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU"):
            return tf.map_fn(decode, encoded, fn_output_signature=image, parallel_iterations=usable_cores())

    return decode_all


def _decode_any(encoded: tf.Tensor, min_size: int) -> tf.Tensor:
    """Returns the image uint8 [height, width, 3]; a JPEG downscaled, with both sides at least `min_size`."""
    return tf.cond(
        tf.strings.substr(encoded, 0, len(_JPEG_START)) == _JPEG_START,
        lambda: _decode_reduced(encoded, min_size),
        # WebP, PNG, GIF and BMP; the first frame of an animation, as viewers show it.
        lambda: tf.ensure_shape(
            tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3]
        ),
    )


def _decode_reduced(encoded: tf.Tensor, min_size: int) -> tf.Tensor:
    side = tf.reduce_min(tf.image.extract_jpeg_shape(encoded)[:2])
    # libjpeg rounds the downscaled sides up.
    fitting = [(side + ratio - 1) // ratio >= min_size for ratio in _RATIOS[1:]]
    choice = tf.reduce_sum(tf.cast(tf.stack(fitting), tf.int32))
    return tf.switch_case(choice, [_reducer(encoded, ratio) for ratio in _RATIOS])


def _reducer(encoded: tf.Tensor, ratio: int) -> Callable[[], tf.Tensor]:
    return lambda: _decode_jpeg(encoded, ratio)


def _decode_jpeg(encoded: tf.Tensor, ratio: int) -> tf.Tensor:
    # TensorFlow's default is a faster DCT that is off by up to 20 levels.
    return tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def resize(pixels: tf.Tensor, size: int, rule: str) -> tf.Tensor:
    """Returns `pixels`, uint8 [height, width, 3], as uint8 [size, size, 3].

    Args:
        pixels: RGB.
        size: In pixels.
        rule: "stretch" ignores the aspect ratio, "crop" takes the center square, "pad" adds black bands.
    """
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    if rule == "stretch":
        return _scale(pixels, size, size)
    if rule == "crop":
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _scale(pixels[top : top + side, left : left + side], size, size)
    scale = tf.cast(size, tf.float64) / tf.cast(tf.maximum(height, width), tf.float64)
    rows, columns = (
        tf.maximum(1, tf.cast(tf.round(tf.cast(side, tf.float64) * scale), tf.int32))
        for side in (height, width)
    )
    inner = _scale(pixels, rows, columns)
    return tf.image.pad_to_bounding_box(inner, (size - rows) // 2, (size - columns) // 2, size, size)


def _scale(pixels: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
    # Area averaging neither blurs nor aliases when shrinking; when enlarging it would produce blocks.
    rows, columns = tf.minimum(tf.shape(pixels)[0], height), tf.minimum(tf.shape(pixels)[1], width)
    scaled = tf.image.resize(pixels, tf.stack([rows, columns]), method="area")
    scaled = tf.cast(tf.round(scaled), tf.uint8)
    enlarged = tf.image.resize(scaled, tf.stack([height, width]), method="bilinear")
    return tf.cast(tf.round(enlarged), tf.uint8)
