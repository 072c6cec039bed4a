"""The tf.data graph: records are read a window at a time, decoded in parallel and batched. No Python for each image.

    windows (Python, one call for hundreds of images): positions -> read plan
      -> read: TFRecordDataset for each run of records, interleaved, into one string tensor for a window
      -> decode: one parallel map over (window's records, place), so that permuting copies nothing but the record
      -> batch -> check that no example is missing -> prefetch on the host

Records that cannot be decoded are dropped by `ignore_errors`, and those of a window that cannot be read lose their
numbers. So a batch that lacks an example is noticed before it is delivered, and Python is asked to name the record:
never in the hot path.
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

# Requests that are under way at once: enough to hide the latency of a network file system.
_OPEN_READS = 16
# Of one request. Its buffer has this size as well.
_READ_BYTES = 2**20
_PREFETCHED_BATCHES = 2
# The number of the examples of a window that could not be read.
_UNREAD = np.int64(-1)
_INT64 = tf.TensorSpec([None], tf.int64)  # pyright: ignore[reportArgumentType]


def without_autograph(function: _Function) -> _Function:
    """Returns `function`, traced as it is, with all that it maps over a dataset.

    AutoGraph rewrites the source of every function that is mapped and of all that it calls, which takes seconds. No
    function of a pipeline has Python control flow on tensors.
    """
    return tf.autograph.experimental.do_not_convert(function)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExamplePlan:
    """Which examples a dataset gives, made before the graph.

    Attributes:
        windows: Returns the windows from a step on; called for every iterator, and to name a corrupt record.
        batch_size: Examples of a batch, of this host.
        first_step: Number of the first step.
        num_examples: Examples of all steps together; None if there is no end.
        num_steps: Steps of all hosts, the same on each; None if there is no end.
    """

    windows: Callable[[int], Iterator[Window]]
    batch_size: int
    first_step: int = 0
    num_examples: int | None = None
    num_steps: int | None = None


@without_autograph
def make_batches(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns the batches of `plan`, decoded by `checker.decoder`: a tuple of tensors [batch, ...].

    Reading raises an error whose message has the sentence of a DatasetError, see `corruption.dataset_error`, if a
    record is missing, corrupt or cannot be decoded.
    """
    examples = decode_examples(index, plan, checker)
    batches = examples.batch(plan.batch_size, drop_remainder=plan.num_examples is None)
    return _checked(with_all_steps(batches, plan), plan, checker)


def with_all_steps(batches: tf.data.Dataset, plan: ExamplePlan) -> tf.data.Dataset:
    """Returns `batches` with empty ones behind them, as many as are missing from the number of steps."""
    if plan.num_steps is None:
        return batches
    element_spec: Any = batches.element_spec
    empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in element_spec)
    return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).take(plan.num_steps)


def finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `batches` made ahead on the host: with `prefetch_to_device` inside they could not be distributed."""
    return batches.prefetch(_PREFETCHED_BATCHES).with_options(pipeline_options())


@without_autograph
def decode_examples(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns (number int64, *tensors) of each example of `plan` that can be read and decoded.

    Numbers count from the first example of step 0. One that could not be decoded is missing; if one of a window could
    not be read, all of that window come with negative numbers and black images.
    """
    dataset = _read_windows(index, plan, checker).prefetch(1).flat_map(_examples)

    def decode(number: tf.Tensor, place: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return number, *checker.decoder(records[place])

    dataset = dataset.map(decode, num_parallel_calls=usable_cores(), deterministic=True)
    return dataset.ignore_errors()


def pipeline_options() -> tf.data.Options:
    """Returns the options of all our datasets: a private pool of a thread per core, and nothing tuned at run time."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = usable_cores()
    options.deterministic = True
    # They cost half a second for each iterator over a cache, and no batch comes sooner for them.
    options.experimental_optimization.apply_default_optimizations = False
    # One has to be on, and this one is free. When TensorFlow 2.21's iterator for several devices is dropped, it frees
    # its dataset before it waits for the batch that is being made. The batch's maker owns the dataset only if a graph
    # optimization rewrote it; otherwise it reads freed memory, and the process crashes.
    options.experimental_optimization.noop_elimination = True
    # On several hosts each takes its slice of the batches of a dataset that is not sharded. By file, as TensorFlow
    # tries first, each would take other batches: the order of records is ours.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _read_windows(index: SplitIndex, plan: ExamplePlan, checker: RecordChecker) -> tf.data.Dataset:
    """Returns for each window (numbers int64 [n], places int64 [n], records string [r]).

    Where a record of the window cannot be read, all numbers are negative, and the records are placeholders.
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
                # Nothing is read of a file that is not what it should be.
                nothing = np.zeros_like(reads.counts)
                reads = reads._replace(offsets=nothing, counts=nothing, num_bytes=nothing + 1)
            yield numbers, *reads

    # tf.data gives the parts of a tuple as arguments, which its type hints do not know.
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
        # A file that is gone fails each time it is asked for its next record: counted, the requests have an end.
        requests_left = tf.data.Dataset.range(num_records + tf.size(places, tf.int64))
        records = tf.data.Dataset.from_tensor_slices(
            tuple(requests)
        ).interleave(
            read,
            cycle_length=_OPEN_READS,
            block_length=_READ_BYTES,  # More than there are records: one request after the other, in their order.
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )
        records = tf.data.Dataset.zip(requests_left, records).ignore_errors().map(lambda _, record: record)
        # Nothing at all is no batch, but one of no records.
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
    """Returns `batches` without the numbers of their examples, which are compared with those that they should be."""

    def name_missing(step: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        # A window with one record that cannot be read lacks all: the record may be one of a later step.
        window = next(plan.windows(int(step))).positions
        expected = int(step) * plan.batch_size + np.arange(window.size)
        raise checker.find_corruption(window.reshape(-1)[~np.isin(expected, numbers)])

    def check(step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        numbers, *tensors = batch
        start, end = step * plan.batch_size, (step + 1) * plan.batch_size
        if plan.num_examples is not None:
            start, end = (tf.minimum(bound, plan.num_examples) for bound in (start, end))
        # Numbers ascend: where first, last and count are right, none is missing.
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
