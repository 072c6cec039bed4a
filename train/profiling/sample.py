"""Some records of a dataset, kept in memory to measure what is done to each of them."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.images.decode import decode, read_source
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.example_features import Feature, find_features
from shardstream.train.data.input_pipeline import StreamedSplit, as_tensor
from shardstream.train.data.stream import Buffers, Record, stream_batches
from shardstream.train.profiling.diagnosis import Stage, StoredSmall
from shardstream.train.profiling.stopwatch import Stopwatch

# Photos of a camera have megabytes: then there are fewer.
_MOST_EXAMPLES = 256
_MOST_BYTES = 64 * 2**20
_FEWEST_EXAMPLES = 8
_PICTURES_AT_ONCE = 16
_MAX_PIXELS = 1 << 40

Input = TypeVar("Input")


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
        stream = StreamedSplit(info, "train", image_size=image_size)
        with contextlib.closing(stream.records(seed=0, epoch=0)) as records:
            self._records = [bytes(record.payload) for record in itertools.islice(records, count)]
        self._info = info
        self._image_size = image_size
        self._keys = (info.image_key.encode(), info.label_key.encode())
        parsed = [self._parse(record) for record in self._records]
        self._encoded = [bytes(example[self._keys[0]]) for example in parsed]  # pyright: ignore[reportArgumentType]
        self._labels = np.asarray([example[self._keys[1]] for example in parsed], np.int32)

    def measure(self, stopwatch: Stopwatch) -> list[Stage]:
        """Returns the stages parse, decode and resize, each with the work of the ones before done already."""
        parse = stopwatch.stage("parse", _mapped(itertools.cycle(self._records), self._parse))
        both = stopwatch.stage("decode", self._decoding(self._encoded, self._info.image))
        if self._info.image.size == self._image_size:
            return [parse, both]

        def decode_whole(picture: bytes) -> None:
            if self._info.image.encoding != "raw":
                decode(read_source(picture, "", _MAX_PIXELS))

        alone = stopwatch.stage("decode", _mapped(itertools.cycle(self._encoded), decode_whole))
        if both.secs <= alone.secs:
            return [parse, both]  # A JPEG can be shrunk while it is decoded: nothing is left to tell apart.
        return [parse, alone, both.without(alone, name="resize")]

    def measure_batching(self, stopwatch: Stopwatch, batch_size: int) -> Stage:
        """Returns the stage that is left of the stream without reading, parsing and decoding.

        Pictures are decoded to where they stand in a batch, so that nothing is copied: handing records to threads,
        waiting for them and giving the batch to TensorFlow is what it costs.
        """
        records = (Record(i, memoryview(payload)) for i, payload in enumerate(itertools.cycle(self._records)))

        def decode_nothing(record: Record, out: np.ndarray) -> int:
            return 0

        batches = stream_batches(
            records,
            decode_nothing,
            Buffers(),
            image_size=self._image_size,
            batch_size=batch_size,
            cores=usable_cores(),
        )

        def take() -> int:
            images, labels, _ = next(batches)
            return len(as_tensor(images)) and len(as_tensor(labels))

        with contextlib.closing(batches):
            return stopwatch.stage("batch", take)

    def batch(self, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (uint8 [batch_size, size, size, 3], int32 [batch_size]) in memory of the host.

        Pictures are there more than once if they must.
        """
        rows = [i % len(self._encoded) for i in range(batch_size)]
        pictures = [self._decode(self._encoded[row], self._info.image) for row in sorted(set(rows))]
        return as_tensor(np.stack([pictures[row] for row in rows])), as_tensor(self._labels[rows])

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

    def _parse(self, record: bytes) -> dict[bytes, Feature]:
        return find_features(record, self._keys)

    def _decode(self, encoded: bytes, stored: ImageSettings) -> np.ndarray:
        out = self._empty(1)[0]
        self._decoder(stored).decode(memoryview(encoded), out)
        return out

    def _decoding(self, encoded: list[bytes], stored: ImageSettings) -> Callable[[], int]:
        decoder = self._decoder(stored)
        # Into the same memory again and again, as training does: what is new has to be cleared by the kernel first.
        places = itertools.cycle(self._empty(_PICTURES_AT_ONCE))
        pairs = zip(itertools.cycle(encoded), places)
        return _mapped(pairs, lambda pair: decoder.decode(memoryview(pair[0]), pair[1]))

    def _decoder(self, stored: ImageSettings) -> PictureDecoder:
        return PictureDecoder(stored=stored, image_size=self._image_size, resize=stored.resize)

    def _empty(self, count: int) -> np.ndarray:
        return np.empty((count, self._image_size, self._image_size, 3), np.uint8)


def _mapped(inputs: Iterable[Input], function: Callable[[Input], object]) -> Callable[[], int]:
    """Returns what takes some results of `function`, on all cores; `inputs` do not end."""
    endless = iter(inputs)
    threads = ThreadPoolExecutor(usable_cores())

    def work() -> int:
        for _ in threads.map(function, itertools.islice(endless, _PICTURES_AT_ONCE)):
            pass
        return _PICTURES_AT_ONCE

    return work


def _encode(picture: np.ndarray, stored: ImageSettings) -> bytes:
    match stored.encoding:
        case "raw":
            return picture.tobytes()
        case "png":
            return tf.io.encode_png(picture).numpy()
        case _:
            return tf.io.encode_jpeg(picture, quality=stored.quality).numpy()
