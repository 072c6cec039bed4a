"""Some records of a dataset, kept in memory to measure what is done to each of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ingest.metadata import DatasetInfo, ImageSettings
from train.damage import naming_damage
from train.diagnosis import Stage, StoredSmall
from train.input_pipeline import StreamedSplit, decode_image, parse_example
from train.machine import usable_cores
from train.stopwatch import Stopwatch

# Photos of a camera have megabytes: then there are fewer.
_MOST_EXAMPLES = 256
_MOST_BYTES = 64 * 2**20
_FEWEST_EXAMPLES = 8
_PICTURES_AT_ONCE = 16


class Sample:
    """Records of the training split from anywhere in it."""

    def __init__(self, info: DatasetInfo, *, image_size: int) -> None:
        """Reads them.

        Raises:
            DatasetError: A shard is missing, cut or damaged.
        """
        split = info.split("train")
        by_size = _MOST_BYTES * split.num_examples // split.num_bytes
        count = min(_MOST_EXAMPLES, max(_FEWEST_EXAMPLES, by_size), split.num_examples)
        records = StreamedSplit(info, "train", image_size=image_size).records(
            seed=0, epoch=0, start=0, count=count
        )
        self._info = info
        self._image_size = image_size
        self._records = [record.numpy() for record in naming_damage(records, info, "train")]
        parsed = [parse_example(record) for record in self._records]
        self._encoded: list[Any] = [example["image"].numpy() for example in parsed]
        self._labels = np.asarray([example["label"].numpy() for example in parsed], np.int32)

    def measure(self, stopwatch: Stopwatch) -> list[Stage]:
        """Returns the stages parse, decode and resize, each with the work of the ones before done already."""
        parse = stopwatch.stage("parse", _mapped(self._records, parse_example))
        both = stopwatch.stage("decode", self._decoding(self._encoded, self._info.image))
        if self._info.image.size == self._image_size:
            return [parse, both]
        decode = stopwatch.stage("decode", _mapped(self._encoded, self._decode_whole))
        if both.secs <= decode.secs:
            return [parse, both]  # A JPEG can be shrunk while it is decoded: nothing is left to tell apart.
        return [parse, decode, both.without(decode, name="resize")]

    def measure_batching(self, stopwatch: Stopwatch, batch_size: int) -> Stage:
        """Returns the stage that puts decoded pictures side by side."""
        images, _ = self.batch(min(batch_size, _MOST_EXAMPLES))
        batches = iter(tf.data.Dataset.from_tensor_slices(images).repeat().batch(batch_size))
        return stopwatch.stage("batch", lambda: len(next(batches)))

    def batch(self, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (uint8 [batch_size, size, size, 3], int32 [batch_size]), pictures more than once if they must."""
        rows = [i % len(self._encoded) for i in range(batch_size)]
        pictures = [self._decode(self._encoded[row], self._info.image) for row in sorted(set(rows))]
        return tf.stack([pictures[row] for row in rows]), tf.constant(self._labels[rows])

    def stored_small(self, stopwatch: Stopwatch) -> StoredSmall | None:
        """Returns what storing the pictures at the size of the model would make of them."""
        stored, size = self._info.image, self._image_size
        if stored.size == size:
            return None
        small = dataclasses.replace(stored, size=size)
        encoded = [_encode(self._decode(picture, stored), stored) for picture in self._encoded]
        stage = stopwatch.stage("decode", self._decoding(encoded, small))
        return StoredSmall(
            image_size=size,
            bytes_share=sum(map(len, encoded)) / sum(map(len, self._encoded)),
            decode_secs=stage.secs,
        )

    def _decode(self, encoded: Any, stored: ImageSettings) -> tf.Tensor:
        return decode_image(encoded, image=stored, image_size=self._image_size, resize=stored.resize)

    def _decoding(self, encoded: list[Any], stored: ImageSettings) -> Callable[[], int]:
        return _mapped(encoded, lambda picture: self._decode(picture, stored)[0, 0, 0])

    def _decode_whole(self, encoded: tf.Tensor) -> tf.Tensor:
        stored = self._info.image
        if stored.encoding == "raw":
            return tf.io.decode_raw(encoded, tf.uint8)[0]
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)[0, 0, 0]


def _mapped(inputs: list[Any], function: Callable[[tf.Tensor], Any]) -> Callable[[], int]:
    """Returns what takes some results of `function` on all cores; one number of each, so that nothing is copied."""
    dataset = tf.data.Dataset.from_tensor_slices(inputs).repeat()
    dataset = dataset.map(function, num_parallel_calls=usable_cores(), deterministic=True)
    results = iter(dataset.batch(_PICTURES_AT_ONCE))

    def work() -> int:
        next(results)
        return _PICTURES_AT_ONCE

    return work


def _encode(picture: tf.Tensor, stored: ImageSettings) -> bytes:
    match stored.encoding:
        case "raw":
            return picture.numpy().tobytes()
        case "png":
            return tf.io.encode_png(picture).numpy()
        case _:
            return tf.io.encode_jpeg(picture, quality=stored.quality).numpy()
