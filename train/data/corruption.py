"""Names the record that stopped a reading, and says what to do about it."""

import logging
from collections.abc import Iterator

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.train.data.bad_records import DamagedSplit
from shardstream.train.data.order import Blocks
from shardstream.train.data.record_source import find_origins, place_of
from shardstream.train.data.shard_reader import read_block

logger = logging.getLogger(__name__)


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


def find_damage(info: DatasetInfo, split_name: str) -> DatasetError:
    """Returns the error that names the first damaged record of a split, after reading them all if it must."""
    split = info.split(split_name)
    try:
        check_shards(info, split_name)
    except DatasetError as damage:
        return damage
    logger.warning("reading the split %r stopped; looking for the damaged shard", split_name)
    for position, what in find_flaws(info, split):
        return bad_record(info, split, position, what)
    return DatasetError(f"{info.data_dir}: split {split_name!r} came up short; {info.remedy}")


def find_flaws(info: DatasetInfo, split: SplitInfo) -> Iterator[tuple[int, str]]:
    """Yields the position of each record of `split` that is not as it was written, and what is wrong with it."""
    blocks = Blocks.of(split)
    for row in range(len(blocks)):
        for number, record in enumerate(read_block(info.data_dir, split, blocks, row)):
            if isinstance(record, str):
                yield int(blocks.firsts[row]) + number, record
