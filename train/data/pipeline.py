"""The tf.data graph: reads records one window at a time, decodes in parallel and batches. No Python code per image.

    windows (Python, one call for hundreds of images): positions -> read plan
      -> read: TFRecordDataset for each run of records, interleaved, into one string tensor for a window
      -> decode: one parallel map over (window's records, place), so that permuting copies nothing but the record
      -> batch -> check that no example is missing -> prefetch on the host

Records that cannot be decoded are dropped by `ignore_errors`; if a record of a window cannot be read, all numbers of
that window become negative. So a batch that lacks an example is detected before it is delivered, and only then Python
is called to name the record: never in the hot path.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.train.data.corruption import RecordChecker
from shardstream.train.data.generators import until_exit
from shardstream.train.data.sampling import Window
from shardstream.train.data.split_index import SplitIndex

_Function = TypeVar("_Function", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

# Concurrent requests: enough to hide the latency of a network file system.
_OPEN_READS = 16
# Bytes per request, also the size of its buffer.
_READ_BYTES = 2**20
_PREFETCHED_BATCHES = 2
# Number given to the examples of a window that could not be read.
_UNREAD = np.int64(-1)
_INT64 = tf.TensorSpec([None], tf.int64)  # pyright: ignore[reportArgumentType]


def without_autograph(function: _Function) -> _Function:
    """Returns `function` exempt from AutoGraph, together with all functions it maps over a dataset.

    AutoGraph rewrites the source of every mapped function and of all functions it calls, which takes seconds. The
    functions of a pipeline have no Python control flow on tensors.
    """
    return tf.autograph.experimental.do_not_convert(function)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExamplePlan:
    """Which examples a dataset yields, determined before the graph is built.

    Attributes:
        windows: Returns the windows from a step on; called for every iterator, and to name a corrupt record.
        batch_size: Examples per batch of this host.
        first_step: Number of the first step.
        num_examples: Examples of all steps; None if endless.
        num_steps: Number of steps, the same on all hosts; None if endless.
    """

    windows: Callable[[int], Iterator[Window]]
    batch_size: int
    first_step: int = 0
    num_examples: int | None = None
    num_steps: int | None = None


@without_autograph
def make_batches(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns the batches of `plan`, decoded by `checker.decoder`: a tuple of tensors [batch, ...].

    Iterating raises an error whose message holds that of a DatasetError, see `corruption.dataset_error`, if a record
    is missing, corrupt or cannot be decoded.
    """
    examples = decode_examples(index, plan, checker)
    batches = examples.batch(plan.batch_size, drop_remainder=plan.num_examples is None)
    return _checked(with_all_steps(batches, plan), plan, checker)


def with_all_steps(batches: tf.data.Dataset, plan: ExamplePlan) -> tf.data.Dataset:
    """Returns `batches`, extended with empty ones to the number of steps."""
    if plan.num_steps is None:
        return batches
    element_spec: Any = batches.element_spec
    empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in element_spec)
    return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).take(plan.num_steps)


def finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `batches` prefetched on the host: with `prefetch_to_device` inside they could not be distributed."""
    return batches.prefetch(_PREFETCHED_BATCHES).with_options(pipeline_options())


@without_autograph
def decode_examples(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns (number int64, *tensors) of each example of `plan` that can be read and decoded.

    Numbers count from the first example of step 0. An example that cannot be decoded is missing; if one of a window
    cannot be read, all of that window get negative numbers and black images.
    """
    dataset = _read_windows(index, plan, checker).prefetch(1).flat_map(_examples)

    def decode(number: tf.Tensor, place: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return number, *checker.decoder(records[place])

    dataset = dataset.map(decode, num_parallel_calls=usable_cores(), deterministic=True)
    return dataset.ignore_errors()


def pipeline_options() -> tf.data.Options:
    """Returns the options of all our datasets: a private pool with one thread per core, and no autotuning."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = usable_cores()
    options.deterministic = True
    # These cost half a second per iterator over a cache, and speed up no batch.
    options.experimental_optimization.apply_default_optimizations = False
    # At least one must be on, and this one is free. When TensorFlow 2.21's iterator for several devices is deleted, it
    # frees its dataset before it waits for the batch in progress. The thread that makes the batch owns the dataset only
    # if a graph optimization rewrote it; otherwise it reads freed memory, and the process crashes.
    options.experimental_optimization.noop_elimination = True
    # On several hosts each reads its slice of the batches of an unsharded dataset. TensorFlow's first choice, sharding
    # by file, would give other batches: the order of records is ours.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _read_windows(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns (numbers int64 [n], places int64 [n], records string [r]) of each window.

    If a record of the window cannot be read, all numbers are negative, and the records are placeholders.
    """
    placeholder = checker.decoder.placeholder
    paths = tf.constant([os.fsencode(index.path(shard)) for shard in range(len(index.shards))])

    def plans() -> Iterator[tuple[np.ndarray, ...]]:
        intact: set[int] = set()
        for window in plan.windows(plan.first_step):
            positions = window.positions.reshape(-1)
            numbers = window.first_step * plan.batch_size + np.arange(len(positions))
            reads = index.plan_reads(positions, _READ_BYTES)
            intact |= {
                shard for shard in set(reads.shards.tolist()) - intact if not checker.shard_error(shard)
            }
            if not intact.issuperset(reads.shards.tolist()):
                # Invalid files are not read.
                nothing = np.zeros_like(reads.counts)
                reads = reads._replace(offsets=nothing, counts=nothing, num_bytes=nothing + 1)
            yield numbers, *reads

    # tf.data passes the elements of a tuple as arguments, which its type hints do not express.
    def read(*request: Any) -> tf.data.Dataset:
        shard, offset, count, num_bytes = request
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(paths, shard[tf.newaxis]),
            compression_type="",
            buffer_size=num_bytes,
            byte_offsets=offset[tf.newaxis],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(count)

    def read_window(*window: Any) -> tf.data.Dataset:
        numbers, *requests, places = window
        num_records = tf.reduce_max(places) + 1
        # A missing file fails on each request for its next record: a fixed count ends the requests.
        requests_left = tf.data.Dataset.range(num_records + tf.size(places, tf.int64))
        records = tf.data.Dataset.from_tensor_slices(
            tuple(requests)
        ).interleave(
            read,
            cycle_length=_OPEN_READS,
            block_length=_READ_BYTES,  # More than the number of records: one request after the other, in order.
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )
        records = tf.data.Dataset.zip(requests_left, records).ignore_errors().map(lambda _, record: record)
        # An empty window still has to be a batch, of no records.
        whole = records.batch(num_records).concatenate(tf.data.Dataset.from_tensors(tf.zeros([0], tf.string)))

        def complete(records: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tf.cond(
                tf.size(records, tf.int64) == num_records,
                lambda: (numbers, places, records),
                lambda: (tf.fill([tf.size(numbers)], _UNREAD), places, tf.fill([num_records], placeholder)),
            )

        return whole.take(1).map(complete)

    windows = tf.data.Dataset.from_generator(lambda: until_exit(plans()), output_signature=(_INT64,) * 6)
    return windows.flat_map(read_window)


def _examples(*window: Any) -> tf.data.Dataset:
    """Returns (number, place, records) for each example of a window; all share one tensor of records."""
    numbers, places, records = window
    examples = tf.data.Dataset.from_tensor_slices((numbers, places))
    shared = tf.data.Dataset.from_tensors(records).repeat()
    return tf.data.Dataset.zip(examples, shared).map(lambda example, records: (*example, records))


def _checked(batches: tf.data.Dataset, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns `batches` without the example numbers, after comparing them with the expected ones."""

    def name_missing(step: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        # A window with one unreadable record lacks all of its records: the corrupt one may belong to a later step.
        window = next(plan.windows(int(step))).positions
        expected = int(step) * plan.batch_size + np.arange(window.size)
        raise checker.find_corruption(window.reshape(-1)[~np.isin(expected, numbers)])

    def check(step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        numbers, *tensors = batch
        start, end = step * plan.batch_size, (step + 1) * plan.batch_size
        if plan.num_examples is not None:
            start, end = (tf.minimum(bound, plan.num_examples) for bound in (start, end))
        # Numbers ascend: if first, last and count are correct, none is missing.
        is_complete = tf.size(numbers, tf.int64) == end - start
        is_complete &= tf.reduce_all(tf.concat([numbers[:1] == start, numbers[-1:] == end - 1], 0))
        numbers = tf.cond(
            is_complete,
            lambda: numbers,
            lambda: tf.numpy_function(name_missing, [step, numbers], tf.int64),
        )
        with tf.control_dependencies([numbers]):
            return tuple(tf.identity(tensor) for tensor in tensors)

    return batches.enumerate(start=plan.first_step).map(check)
