"""Which records of a split are predicted, chosen by their positions before anything is read."""

import dataclasses

import numpy as np

from ingest.errors import ConfigError

# The batch of the notebook, which people still count in.
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The chosen records of a split.

    Attributes:
        positions: Ascending int64 positions in file order over all shards, counted from 0.
        num_available: The number of records in the split.
        description: How they were chosen, for people.
    """

    positions: np.ndarray
    num_available: int
    description: str


def select(
    split_name: str, num_available: int, *, batch: int | None, sample: int | None, seed: int
) -> Selection:
    """Returns the batch or the sample that is asked for, or every record where neither is."""
    if batch is not None:
        return select_batch(split_name, num_available, batch)
    if sample is not None:
        return select_sample(split_name, num_available, sample, seed=seed)
    return select_all(split_name, num_available)


def select_all(split_name: str, num_available: int) -> Selection:
    """Returns every record of the split."""
    return Selection(
        positions=np.arange(num_available),
        num_available=num_available,
        description=f"all {num_available:,} pictures of the {split_name} split",
    )


def select_sample(split_name: str, num_available: int, size: int, *, seed: int) -> Selection:
    """Returns `size` records, each equally likely and none twice, or all where there are not so many."""
    if size >= num_available:
        return select_all(split_name, num_available)
    chosen = np.random.default_rng(seed).choice(num_available, size, replace=False, shuffle=False)
    return Selection(
        positions=np.sort(chosen),
        num_available=num_available,
        description=(
            f"a uniform sample of {size:,} of the {num_available:,} pictures "
            f"of the {split_name} split, seed {seed}"
        ),
    )


def select_batch(split_name: str, num_available: int, number: int) -> Selection:
    """Returns the batch of 32 records with `number` counted from 1; the last one may be shorter.

    Raises:
        ConfigError: There are not so many batches.
    """
    num_batches = -(-num_available // BATCH_SIZE)
    if number > num_batches:
        raise ConfigError(
            f"--batch {number}: the {split_name} split has {num_available:,} pictures, "
            f"which are {num_batches} batches of {BATCH_SIZE}; give 1 to {num_batches}"
        )
    first = BATCH_SIZE * (number - 1)
    last = min(first + BATCH_SIZE, num_available)
    return Selection(
        positions=np.arange(first, last),
        num_available=num_available,
        description=(
            f"batch {number} of {num_batches}: pictures {first + 1:,} to {last:,} "
            f"of the {num_available:,} of the {split_name} split, in file order"
        ),
    )
