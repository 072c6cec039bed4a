"""Names the record that stopped a reading, and says what to do about it."""

import contextlib
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tensorflow as tf

from ingest.errors import DatasetError, UserError
from ingest.metadata import DatasetInfo, SplitInfo
from train.bad_records import DamagedSplit
from train.order import Blocks
from train.origin import find_origins, place_of
from train.shard_reader import read_block

logger = logging.getLogger(__name__)
Element = TypeVar("Element")

# What TensorFlow's own readers say of a shard that is cut, missing or damaged.
_READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    tf.errors.PermissionDeniedError,
    tf.errors.OutOfRangeError,
)

# TensorFlow keeps of an exception that Python raised inside of it no more than the text.
_carried: dict[str, UserError] = {}
_numbers = itertools.count()
_TICKET = re.compile(r"shardstream error [0-9]+\b")


class _CarriedError(Exception):
    pass


@contextlib.contextmanager
def carried_through_tensorflow() -> Iterator[None]:
    """Lets `naming_damage` raise the errors of a generator that TensorFlow calls as they were."""
    try:
        yield
    except UserError as error:
        ticket = f"shardstream error {next(_numbers)}"
        _carried[ticket] = error
        raise _CarriedError(ticket) from None


def naming_damage(elements: Iterable[Element], info: DatasetInfo, split_name: str) -> Iterator[Element]:
    """Yields `elements`, which come from the shards of a split.

    Raises:
        DatasetError: A shard is missing, cut or damaged, or a record cannot be decoded.
    """
    iterator = iter(elements)
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            ticket = _TICKET.search(str(error.message))
            if ticket and ticket[0] in _carried:
                raise _carried.pop(ticket[0]) from None
            if not isinstance(error, _READ_ERRORS):
                raise
            raise find_damage(info, split_name, error) from None
        yield element


def check_shards(info: DatasetInfo, split_name: str) -> None:
    """Looks at the sizes of all shards of a split.

    Raises:
        DatasetError: A shard is missing, or longer or shorter than it was when it was written.
    """
    split = info.split(split_name)
    known = split.damaged_shards if isinstance(split, DamagedSplit) else frozenset()
    for shard in split.shards:
        if shard.filename in known:  # What is left of it was found whole.
            continue
        path = info.data_dir / shard.filename
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError:
            raise DatasetError(f"{path}: no such shard; {info.remedy}") from None
        if num_bytes != shard.num_bytes:
            raise DatasetError(f"{path}: {num_bytes:,} bytes, expected {shard.num_bytes:,}; {info.remedy}")


def bad_record(info: DatasetInfo, split: SplitInfo, position: int, what: str) -> DatasetError:
    """Returns the error that names the record at `position` of `split`, of which `what` is wrong."""
    place = place_of(split, position)
    origin = find_origins(info, [place]).get(place)
    made_of = f" (of {origin.path})" if origin else ""
    path = info.data_dir / split.shards[place.shard].filename
    return DatasetError(f"{path}: record {place.number}{made_of} {what}; {info.remedy}")


def find_damage(info: DatasetInfo, split_name: str, error: tf.errors.OpError | None = None) -> DatasetError:
    """Returns the error that names the first damaged record of a split, after reading them all if it must."""
    split = info.split(split_name)
    try:
        check_shards(info, split_name)
    except DatasetError as damage:
        return damage
    logger.warning("reading the split %r stopped; looking for the damaged shard", split_name)
    for position, what in find_flaws(info, split):
        return bad_record(info, split, position, what)
    if error is None:
        return DatasetError(f"{info.data_dir}: split {split_name!r} came up short; {info.remedy}")
    # All bytes are as they were written, so a record holds what cannot be parsed or decoded.
    return DatasetError(
        f"{info.data_dir}: a record of split {split_name!r} cannot be read ({_first_line(error)}); {info.remedy}"
    )


def find_flaws(info: DatasetInfo, split: SplitInfo) -> Iterator[tuple[int, str]]:
    """Yields the position of each record of `split` that is not as it was written, and what is wrong with it."""
    blocks = Blocks.of(split)
    for row in range(len(blocks)):
        path = info.data_dir / split.shards[blocks.shards[row]].filename
        records = read_block(
            path, int(blocks.offsets[row]), int(blocks.lengths[row]), int(blocks.counts[row])
        )
        for number, record in enumerate(records):
            if isinstance(record, str):
                yield int(blocks.firsts[row]) + number, record


def _first_line(error: tf.errors.OpError) -> str:
    # "{{function_node __wrapped__IteratorGetNext...}} the cause [[{{node ...}}]]"
    message = str(error.message).splitlines()[0]
    return message.rsplit("}} ", 1)[-1].split(" [[", 1)[0].strip()
