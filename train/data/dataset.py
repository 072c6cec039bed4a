"""A dataset folder as tf.data.Datasets: what `shardstream.load_dataset` returns."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.train.data.arguments import whole_number
from shardstream.train.data.folder import load_info, open_split_index
from shardstream.train.data.sampling import BatchSlice, EpochSampler, Window
from shardstream.train.data.sequential import SequentialSampler
from shardstream.train.data.split_index import SplitIndex

# Modules that need TensorFlow are imported where batches are made: reading the metadata does not need it.
if TYPE_CHECKING:
    import tensorflow as tf

    from shardstream.ingest.images.settings import Resize
    from shardstream.train.data.cache import ImageCaches, Progress, Tier
    from shardstream.train.data.skipping import BadRecords
    from shardstream.train.data.source import SplitSource

_FILL_BATCH_SIZE = 64
# Numbers of examples are int64 in graphs.
_MAX_STEP, _MAX_BATCH_SIZE = 1 << 40, 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A dataset folder.

    Attributes:
        info: Metadata of the folder.
    """

    info: DatasetInfo
    _indexes: dict[str, SplitIndex] = dataclasses.field(default_factory=dict, repr=False)
    _bad_records: "dict[str, BadRecords]" = dataclasses.field(default_factory=dict, repr=False)
    _image_caches: "list[ImageCaches]" = dataclasses.field(default_factory=list, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self.info.class_names

    @property
    def splits(self) -> Mapping[str, SplitInfo]:
        """The splits by name, each with `num_examples`."""
        return self.info.splits

    @property
    def image_size(self) -> int | None:
        """Height and width of the stored images; None where they differ."""
        return self.info.image.size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that training sees: classes, image settings and the content of each shard."""
        return self.info.fingerprint

    def files(self, split: str) -> tuple[Path, ...]:
        """Returns the TFRecord files of a split, in order.

        Raises:
            DatasetError: There is no such split.
        """
        return tuple(self.info.data_dir / shard.filename for shard in self.info.split(split).shards)

    def steps_per_epoch(self, batch_size: int, *, split: str = "train") -> int:
        """Returns the number of complete batches per epoch; `batch_size` is global, over all hosts.

        Raises:
            ConfigError: The batch size is not positive.
            DatasetError: There is no such split, or it has less than one batch.
        """
        return self._sampler(split, batch_size, seed=0).steps_per_epoch

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        split: str = "train",
        start_step: int = 0,
        image_size: int | None = None,
        shard: tuple[int, int] = (0, 1),
        cache: "Tier" = "none",
        cache_dir: Path | None = None,
        max_bad_records: int = 0,
        device: str | None = None,
        progress: "Progress | None" = None,
    ) -> "tf.data.Dataset":
        """Returns shuffled batches, repeated over endless epochs: images and labels.

        Images are uint8 [batch_size / shard count, image_size, image_size, 3], RGB; labels int32. The content of a
        batch depends only on the data, `batch_size`, `seed` and its step. The remainder that fills no complete batch
        is dropped, different examples in each epoch.

        Args:
            batch_size: Global batch size, over all hosts.
            seed: Seed of the shuffling, 0 or more.
            split: Name of the split.
            start_step: Number of the first step, counted from the start of training.
            image_size: Height and width in pixels; the stored size by default.
            shard: (index, count): the index-th of `count` equal parts of each global batch.
            cache: Where decoded images are kept: "none", "memory", "disk", or "auto" for the fastest that fits. The
                cache is filled before this method returns.
            cache_dir: Folder of disk caches.
            max_bad_records: How many corrupt records may be skipped; if positive, all records are read once in advance.
            device: For example "/GPU:0": batches are copied there in advance. Not for use with tf.distribute.
            progress: Called with the number of images cached so far and of all images, while the cache is filled.

        Raises:
            ConfigError: An argument is invalid.
            DatasetError: There is no such split, it has less than one batch, or a record is corrupt.
            LimitError: More than `max_bad_records` records are corrupt.
        """
        from shardstream.train.data.cache import cached_batches
        from shardstream.train.data.delivery import delivered
        from shardstream.train.data.pipeline import ExamplePlan, make_batches

        start_step = whole_number("start_step", start_step, most=_MAX_STEP)
        sampler, part = self._sampler(split, batch_size, seed), BatchSlice.make(shard)
        columns = part.columns(batch_size)
        source = self.source(split, image_size, max_bad_records=max_bad_records)
        start, end = sampler.record_range(part)
        request = source.cache_request(
            SequentialSampler.make(
                source.index,
                batch_size=_FILL_BATCH_SIZE,
                start=start,
                end=end,
                position_of=source.bad.replace,
            ),
            {"start": start, "end": end, "replaced": source.bad.positions.tolist()},
        )

        def windows(step: int) -> Iterator[Window]:
            for window in sampler.windows(start_step=step, part=part):
                yield window._replace(positions=source.bad.replace(window.positions))

        plan = ExamplePlan(windows=windows, batch_size=columns.stop - columns.start, first_step=start_step)
        cached = self._caches().get(request, cache, cache_dir=cache_dir, progress=progress)
        if cached is None:
            return delivered(make_batches(source.index, plan, source.checker), device)
        # Rows of corrupt records already hold their replacements.
        rows = dataclasses.replace(plan, windows=lambda step: sampler.windows(start_step=step, part=part))
        return delivered(cached_batches(cached, rows, lambda window: window.positions - start), device)

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        image_size: int | None = None,
        shard: tuple[int, int] = (0, 1),
        pad_last_batch: bool = False,
        with_keys: bool = False,
        cache: "Tier" = "none",
        cache_dir: Path | None = None,
        max_bad_records: int = 0,
        device: str | None = None,
        progress: "Progress | None" = None,
    ) -> "tf.data.Dataset":
        """Returns each example once, in file order: images, labels and sample weights (float32, 1).

        Args:
            split: Name of the split.
            batch_size: Global batch size, over all hosts; the last batch may be smaller.
            image_size: Height and width in pixels; the stored size by default.
            shard: (index, count): the index-th of `count` equal parts of each global batch.
            pad_last_batch: Gives all batches the same shape, and all hosts the same number of batches: padding examples
                are black images of label 0 and weight 0. Weighted sums over the examples are exact then; Keras' loss is
                not, as it divides by the batch size.
            with_keys: Adds the file names, string [batch], as fourth element; these batches always bypass the cache.
            cache: See `train_batches`; both share a cache if the images are the same.
            cache_dir: Folder of disk caches.
            max_bad_records: How many corrupt records may be left out.
            device: See `train_batches`.
            progress: See `train_batches`.

        Raises:
            ConfigError: An argument is invalid.
            DatasetError: There is no such split, or a record is corrupt.
            LimitError: More than `max_bad_records` records are corrupt.
        """
        from shardstream.train.data.cache import cached_batches
        from shardstream.train.data.delivery import add_weights, delivered, pad_batches
        from shardstream.train.data.pipeline import ExamplePlan, make_batches

        batch_size = whole_number("batch_size", batch_size, least=1, most=_MAX_BATCH_SIZE)
        part = BatchSlice.make(shard)
        source = self.source(split, image_size, max_bad_records=max_bad_records, with_keys=with_keys)
        sampler = SequentialSampler.make(
            source.index,
            batch_size=batch_size,
            end=source.index.num_examples - len(source.bad),
            part=part,
            position_of=source.bad.intact,
        )
        local_batch_size = batch_size // part.count
        plan = ExamplePlan(
            windows=sampler.windows,
            batch_size=local_batch_size,
            num_examples=sampler.num_examples,
            num_steps=sampler.num_steps if pad_last_batch else -(-sampler.num_examples // local_batch_size),
        )
        request = source.cache_request(
            sampler,
            {"start": 0, "end": sampler.end, "replaced": []}
            if part.count == 1 and not len(source.bad)  # As in training.
            else {"left_out": source.bad.positions.tolist(), "shard": shard, "batch_size": batch_size},
        )
        tier: Tier = "none" if with_keys else cache
        cached = self._caches().get(request, tier, cache_dir=cache_dir, progress=progress)
        if cached is None:
            batches = make_batches(source.index, plan, source.checker)
        else:
            batches = cached_batches(cached, plan, lambda window: _row_numbers(window, local_batch_size))
        weigh = pad_batches(local_batch_size) if pad_last_batch else add_weights
        return delivered(batches.map(weigh), device)

    def bad_records(self, split: str, *, max_bad_records: int, image_size: int | None = None) -> "BadRecords":
        """Returns the corrupt records of a split, after reading and decoding every record once.

        Raises:
            LimitError: There are more than `max_bad_records`.
        """
        return self.source(split, image_size, max_bad_records=max_bad_records).bad

    def file_names(self, split: str, step: int, *, batch_size: int, seed: int) -> list[str]:
        """Returns the source files, sorted, of the examples of a training batch, where its records name them."""
        positions = np.sort(self._sampler(split, batch_size, seed).positions(step))
        source = self.source(split, None if self.image_size else 1, with_keys=True)
        keys = [key for *_, keys in source.chosen(positions, batch_size=batch_size) for key in keys.numpy()]
        return sorted(key.decode("utf-8", "surrogateescape") for key in keys)

    def _sampler(self, split: str, batch_size: int, seed: int) -> EpochSampler:
        info = self.info.split(split)
        try:
            return EpochSampler.make(
                info.num_examples, num_bytes=info.num_bytes, batch_size=batch_size, seed=seed
            )
        except DatasetError as error:
            raise DatasetError(f"{self.info.data_dir}: split {split!r}: {error}") from None

    def source(
        self,
        split: str,
        image_size: int | None = None,
        *,
        resize: "Resize | None" = None,
        max_bad_records: int = 0,
        with_keys: bool = False,
        with_records: bool = False,
    ) -> "SplitSource":
        """Returns a split ready to be read, for callers with a sampling order of their own.

        Args:
            split: Name of the split.
            image_size: Height and width in pixels; the stored size by default.
            resize: How images of another size become square; by default the rule of the dataset.
            max_bad_records: See `train_batches`.
            with_keys: Adds the file names.
            with_records: Adds the serialized examples, last.

        Raises:
            ConfigError: An argument is invalid.
            DatasetError: There is no such split.
            LimitError: More than `max_bad_records` records are corrupt.
        """
        from shardstream.train.data.corruption import RecordChecker
        from shardstream.train.data.pixels import ExampleDecoder
        from shardstream.train.data.skipping import BadRecords, find_bad_records
        from shardstream.train.data.source import SplitSource

        max_bad_records = whole_number("max_bad_records", max_bad_records)
        decoder = ExampleDecoder.make(self.info, image_size, with_keys=with_keys, with_records=with_records)
        if resize is not None:
            decoder = dataclasses.replace(decoder, stored=dataclasses.replace(decoder.stored, resize=resize))
        checker = RecordChecker(self.info, self._index(split), decoder)
        if not max_bad_records:
            return SplitSource(self.info, checker, BadRecords.none())
        if split not in self._bad_records:
            self._bad_records[split] = find_bad_records(checker.index, checker, limit=max_bad_records)
        bad = self._bad_records[split]
        bad.check_limit(checker, max_bad_records)
        return SplitSource(self.info, checker, bad)

    def _caches(self) -> "ImageCaches":
        from shardstream.train.data.cache import ImageCaches

        if not self._image_caches:
            self._image_caches.append(ImageCaches())
        return self._image_caches[0]

    def _index(self, split: str) -> SplitIndex:
        if split not in self._indexes:
            self._indexes[split] = open_split_index(self.info, split)
        return self._indexes[split]


def load_dataset(
    data_dir: Path, *, cache_dir: Path | None = None, validation_share: float | None = None, seed: int = 123
) -> Dataset:
    """Reads the metadata of the dataset folder `data_dir`: one of ours, or one that TensorFlow Datasets can read.

    Args:
        data_dir: The folder.
        cache_dir: Where the scan results of TFDS folders are kept.
        validation_share: The fraction of the train split to hold out, for datasets with only a train split.
        seed: Decides which examples are held out.

    Raises:
        ConfigError: `validation_share` is given for a dataset that has a validation split.
        DatasetError: Not a dataset folder, incomplete, or corrupt.
    """
    return Dataset(load_info(data_dir, cache_dir=cache_dir, validation_share=validation_share, seed=seed))


def _row_numbers(window: Window, batch_size: int) -> np.ndarray:
    first = window.first_step * batch_size
    return first + np.arange(window.positions.size).reshape(window.positions.shape)
