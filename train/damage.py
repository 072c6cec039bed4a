"""Names the shard that stopped a reading. TensorFlow's own errors say neither which nor what to do."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import tensorflow as tf

from ingest.errors import DatasetError
from ingest.metadata import DatasetInfo, ShardInfo

logger = logging.getLogger(__name__)
Element = TypeVar("Element")

# A shard that is cut, missing or damaged ends in one of these; anything else is a bug or the machine's doing.
_READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    tf.errors.PermissionDeniedError,
    tf.errors.OutOfRangeError,
)


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
        except _READ_ERRORS as error:
            raise find_damage(info, split_name, error) from None
        yield element


def check_shards(info: DatasetInfo, split_name: str) -> None:
    """Looks at the sizes of all shards of a split.

    Raises:
        DatasetError: A shard is missing, or longer or shorter than it was when it was written.
    """
    for shard in info.split(split_name).shards:
        path = info.data_dir / shard.filename
        if not path.is_file():
            raise DatasetError(f"{path}: no such shard; {_what_to_do(info)}")
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            raise DatasetError(
                f"{path}: {num_bytes:,} bytes, expected {shard.num_bytes:,}; {_what_to_do(info)}"
            )


def find_damage(info: DatasetInfo, split_name: str, error: tf.errors.OpError | None = None) -> DatasetError:
    """Returns the error that names the first damaged shard of a split, after reading them all if it must."""
    try:
        check_shards(info, split_name)
        logger.warning("reading the split %r stopped; looking for the damaged shard", split_name)
        for shard in info.split(split_name).shards:
            _check_records(info, shard)
    except DatasetError as damage:
        return damage
    if error is None:
        return DatasetError(f"{info.data_dir}: split {split_name!r} came up short; {_what_to_do(info)}")
    # All bytes are as they were written, so a record holds what cannot be parsed or decoded.
    return DatasetError(
        f"{info.data_dir}: a record of split {split_name!r} cannot be read ({_first_line(error)}); "
        f"{_what_to_do(info, '--deep')}"
    )


def _check_records(info: DatasetInfo, shard: ShardInfo) -> None:
    path = info.data_dir / shard.filename
    num_examples = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path), buffer_size=2**20):
            num_examples += 1
    except tf.errors.OpError:
        raise DatasetError(f"{path}: record {num_examples} is damaged; {_what_to_do(info)}") from None
    if num_examples != shard.num_examples:
        raise DatasetError(
            f"{path}: {num_examples:,} records, expected {shard.num_examples:,}; {_what_to_do(info)}"
        )


def _what_to_do(info: DatasetInfo, *options: str) -> str:
    command = " ".join(["shardstream-ingest verify", str(Path(info.data_dir)), *options])
    return f"`{command}` shows all damage"


def _first_line(error: tf.errors.OpError) -> str:
    # "{{function_node __wrapped__IteratorGetNext...}} the cause [[{{node ...}}]]"
    message = str(error.message).splitlines()[0]
    return message.rsplit("}} ", 1)[-1].split(" [[", 1)[0].strip()
