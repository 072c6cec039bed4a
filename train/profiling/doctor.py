"""Measures each part of a training alone, and the whole with each cache tier."""

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, get_args

import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.memory_limits import free_memory_bytes
from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.train.config import DoctorConfig
from shardstream.train.data.cache import Tier, decoded_bytes, make_source
from shardstream.train.data.cache_folder import CacheFolder, default_cache_dir
from shardstream.train.data.input_pipeline import ExampleSource, StreamedSplit, make_train_batches
from shardstream.train.data.stream import Record
from shardstream.train.distributed.strategy import free_device_bytes
from shardstream.train.engine.meter import EpochMeter
from shardstream.train.engine.progress import BEGINNING
from shardstream.train.engine.trainer import Trainer
from shardstream.train.models.augmentation import Augmentation
from shardstream.train.profiling.diagnosis import Measurements, Mode, Stage
from shardstream.train.profiling.sample import Sample
from shardstream.train.profiling.stopwatch import Stopwatch
from shardstream.train.resolve import ResolvedConfig, make_model, prepare

# What a cache tier is measured on: whole shards with at least so many pictures. At 300x300 that is 276 MB, many times
# what a processor's own caches hold.
_CACHED_EXAMPLES = 1024
# The usual window, read ahead, would hide a slow disk for longer than is measured.
_WINDOW_BYTES = 2**20
_RECORDS_AT_ONCE = 64
_SHARE_OF_FREE = 0.5


def measure(config: DoctorConfig) -> Measurements:
    """Measures the training that `config` describes.

    Raises:
        ConfigError: An option does not fit the dataset or the machine.
        DatasetError: The dataset is not there, not complete or damaged.
    """
    setup = prepare(config.train_config())
    stopwatch = Stopwatch(config.seconds)
    sample = Sample(setup.info, image_size=setup.image_size)
    input_stages = [
        _measure_reading(setup, stopwatch),
        *sample.measure(stopwatch),
        sample.measure_batching(stopwatch, setup.batch_size),
    ]
    steps, _ = make_model(setup)
    return Measurements(
        data_dir=config.data_dir,
        cache=setup.cache,
        input_stages=input_stages,
        device_stages=_measure_device(setup, steps, sample, stopwatch),
        modes=[_measure_mode(setup, steps, tier, stopwatch) for tier in get_args(Tier)],
        stored_small=sample.stored_small(stopwatch),
        shares_cores=not tf.config.list_logical_devices("GPU"),
        num_cores=usable_cores(),
    )


def _measure_reading(setup: ResolvedConfig, stopwatch: Stopwatch) -> Stage:
    """Reads records in the order of training, checks them and does nothing else; from the disk or the page cache."""
    stream = StreamedSplit(setup.info, "train", image_size=setup.image_size, window_bytes=_WINDOW_BYTES)

    def records() -> Generator[Record]:
        for epoch in itertools.count():
            yield from stream.records(seed=setup.config.seed, epoch=epoch)

    with contextlib.closing(records()) as endless:
        return stopwatch.stage("read", lambda: len(list(itertools.islice(endless, _RECORDS_AT_ONCE))))


def _measure_device(
    setup: ResolvedConfig, steps: Trainer, sample: Sample, stopwatch: Stopwatch
) -> list[Stage]:
    """Copies, augments and trains one batch again and again, which lies on the device for the last two."""
    batch_size = setup.batch_size
    host_batch = sample.batch(batch_size)
    stages = []
    batch_images = host_batch[0]
    if gpus := tf.config.list_logical_devices("GPU"):
        with tf.device(gpus[0].name):
            batch_images = tf.identity(host_batch[0])

        def copy() -> int:
            with tf.device(gpus[0].name):
                tf.identity(host_batch[0])[0, 0, 0, 0].numpy()  # Waits until it is there.
            return batch_size

        stages.append(stopwatch.stage("copy to the device", copy))
    part = tuple(tensor[: batch_size // setup.num_replicas] for tensor in host_batch)
    batch = next(steps.distributed(itertools.repeat(part)))
    if setup.num_replicas == 1 and gpus:
        with tf.device(gpus[0].name):
            batch = tuple(map(tf.identity, batch))

    def train() -> int:
        steps.train(batch)
        steps.trained.num_seen()  # Waits for the device, as a queue of steps without end would tell nothing.
        return batch_size

    step = stopwatch.stage("step", train)
    augmentation = stopwatch.stage("augment", _augmenting(steps.augmentation, (batch_images, host_batch[1])))
    return [*stages, augmentation, step.without(augmentation, name="step")]


def _augmenting(augmentation: Augmentation, batch: tuple[tf.Tensor, tf.Tensor]) -> Callable[[], int]:
    """Returns what augments a batch as a step of training does."""

    @tf.function
    def augment(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        images, _ = augmentation(images, tf.one_hot(labels, 2))
        return images[0, 0, 0, 0]

    def work() -> int:
        augment(*batch).numpy()
        return len(batch[0])

    return work


def _measure_mode(setup: ResolvedConfig, steps: Trainer, tier: Tier, stopwatch: Stopwatch) -> Mode:
    """Measures the whole with a cache tier, from the second epoch on: a tier is filled before."""
    info = setup.info if tier == "none" else _some_shards(setup.info, setup.batch_size)
    if unfit := _unfit(setup, tier):
        return Mode(cache=tier, unfit=unfit)
    with tempfile.TemporaryDirectory(prefix="shardstream-") as folder:
        source = make_source(
            info,
            "train",
            tier=tier,
            image_size=setup.image_size,
            strategy=setup.strategy,
            folder=CacheFolder(Path(folder)),
        )
        source.complete()
    batches = _batches(setup, steps, source)
    batch_size = setup.batch_size

    def take() -> int:
        next(batches)
        return batch_size

    alone = stopwatch.stage(tier, take)
    meter = EpochMeter(BEGINNING)
    waited_for = meter.waited_for(batches)

    def train() -> int:
        steps.train(next(waited_for))
        return batch_size

    trained = stopwatch.stage(tier, train, finish=steps.trained.num_seen)
    return Mode(
        cache=tier,
        input_images_per_sec=alone.images_per_sec,
        images_per_sec=trained.images_per_sec,
        input_wait=min(1.0, meter.waiting_secs / meter.secs()),
    )


def _batches(setup: ResolvedConfig, steps: Trainer, source: ExampleSource) -> Iterator[Any]:
    for epoch in itertools.count(1):
        parts = make_train_batches(
            source,
            seed=setup.config.seed,
            epoch=epoch,
            batch_size=setup.batch_size,
            num_replicas=setup.num_replicas,
        )
        yield from map(source.on_devices, steps.distributed(parts))


def _some_shards(info: DatasetInfo, batch_size: int) -> DatasetInfo:
    """Returns the dataset with no more training shards than are needed to measure a tier."""
    split = info.split("train")
    ends = itertools.accumulate(shard.num_examples for shard in split.shards)
    enough = max(_CACHED_EXAMPLES, batch_size)
    num_shards = next((i + 1 for i, end in enumerate(ends) if end >= enough), len(split.shards))
    some = SplitInfo(name=split.name, shards=split.shards[:num_shards], class_counts=split.class_counts)
    return dataclasses.replace(info, splits={**info.splits, "train": some})


def _unfit(setup: ResolvedConfig, tier: Tier) -> str:
    """Returns why a tier cannot be used for the dataset; the one that training would use is not asked."""
    if tier in ("none", setup.cache):
        return ""
    needed = decoded_bytes([setup.info.split("train"), setup.info.split("validation")], setup.image_size)
    free, where = _free_bytes(tier)
    if needed <= _SHARE_OF_FREE * free:
        return ""
    return f"the pictures take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB of {where} are free"


def _free_bytes(tier: Tier) -> tuple[int, str]:
    on_device = free_device_bytes()
    if tier == "disk":
        return CacheFolder(default_cache_dir()).free_bytes(), "disk"
    if tier == "device" and on_device is not None:
        return on_device, "the device"
    return free_memory_bytes(), "memory"
