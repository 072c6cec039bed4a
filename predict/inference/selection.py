"""Selects the records of a split to predict, by a rule and a seed, before prediction."""

import dataclasses
from typing import Literal

import numpy as np

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.labels import read_labels

Rule = Literal["all", "batch", "uniform", "stratified"]

# The batch size of the notebook, which people still count in.
BATCH_SIZE = 32

DEFAULT_SPLIT = "validation"

Sampling = Literal["uniform", "stratified", "worst", "confident-errors", "borderline"]
# Rankings that require predicting the complete split.
RANKED: tuple[Sampling, ...] = ("worst", "confident-errors", "borderline")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """The selected records of a split.

    Attributes:
        rule: The rule of the selection.
        split: Name of the split.
        positions: Ascending int64 positions in file order over all shards, from 0.
        weights: float32, how many records of the split each of them stands for.
        num_available: The number of records in the split.
        seed: The seed; None if nothing was drawn.
        batch: The number of the batch, from 1; None if no batch was requested.
    """

    rule: Rule
    split: str
    positions: np.ndarray
    weights: np.ndarray
    num_available: int
    seed: int | None = None
    batch: int | None = None

    @property
    def num_batches(self) -> int:
        """Number of batches in the split."""
        return -(-self.num_available // BATCH_SIZE)

    @property
    def description(self) -> str:
        """Description of the selection for people."""
        images = f"images of the {self.split} split"
        match self.rule:
            case "all":
                return f"all {self.num_available:,} {images}"
            case "batch":
                first, last = int(self.positions[0]) + 1, int(self.positions[-1]) + 1
                return (
                    f"batch {self.batch} of {self.num_batches}: images {first:,} to {last:,} "
                    f"of the {self.num_available:,} of the {self.split} split, in file order"
                )
            case _:
                return (
                    f"a {self.rule} sample of {len(self.positions):,} of the {self.num_available:,} {images}, "
                    f"seed {self.seed}{', each class weighted by its size' if self.rule == 'stratified' else ''}"
                )


def choose_split(info: DatasetInfo, name: str | None) -> str:
    """Returns the split to predict: the given one, else validation, else the only one.

    Raises:
        ConfigError: There are several, and none is called validation.
    """
    if name is not None or DEFAULT_SPLIT in info.splits:
        return name or DEFAULT_SPLIT
    if len(info.splits) == 1:
        return next(iter(info.splits))
    raise ConfigError(
        f"{info.data_dir}: no split {DEFAULT_SPLIT!r}; choose one with --split: {', '.join(sorted(info.splits))}"
    )


def select(
    info: DatasetInfo,
    split: str,
    *,
    batch: int | None = None,
    every_record: bool = False,
    sampling: Sampling = "uniform",
    size: int,
    seed: int,
) -> Selection:
    """Returns the selection that the options request.

    Raises:
        ConfigError: The batch number is too large.
        DatasetError: There is no such split, or the manifest is needed and corrupt.
    """
    num_available = info.split(split).num_examples
    if batch is not None:
        return select_batch(split, num_available, batch)
    if every_record or sampling in RANKED:
        return select_all(split, num_available)
    if sampling == "stratified":
        labels = read_labels(info, split)
        return select_stratified(split, labels, size, seed=seed)
    return select_sample(split, num_available, size, seed=seed)


def select_all(split: str, num_available: int) -> Selection:
    """Returns every record of the split."""
    return Selection(
        rule="all",
        split=split,
        positions=np.arange(num_available),
        weights=np.ones(num_available, np.float32),
        num_available=num_available,
    )


def select_sample(split: str, num_available: int, size: int, *, seed: int) -> Selection:
    """Returns `size` records drawn uniformly without replacement, or all if there are fewer."""
    if size >= num_available:
        return select_all(split, num_available)
    chosen = np.random.default_rng(seed).choice(num_available, size, replace=False, shuffle=False)
    return Selection(
        rule="uniform",
        split=split,
        positions=np.sort(chosen),
        weights=np.full(size, num_available / size, np.float32),
        num_available=num_available,
        seed=seed,
    )


def select_stratified(split: str, labels: np.ndarray, size: int, *, seed: int) -> Selection:
    """Returns about `size` records, the same number of each class as far as possible.

    Smaller classes are taken completely, and the others share the remainder, so rare classes are seen. A record
    stands for num_class / num_drawn records of its class: metrics of the complete split use this weight.

    Args:
        split: The name of the split.
        labels: int [num_available], the label of each record.
        size: How many to draw; at least one of each class is drawn, even if that is more.
        seed: Seed of the draw.
    """
    if size >= len(labels):
        return select_all(split, len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    shares = share_out(counts, size)
    rng = np.random.default_rng(seed)
    drawn = [
        np.sort(rng.choice(np.flatnonzero(labels == label), share, replace=False, shuffle=False))
        for label, share in zip(classes, shares, strict=True)
    ]
    positions = np.concatenate(drawn)
    order = np.argsort(positions)
    return Selection(
        rule="stratified",
        split=split,
        positions=positions[order],
        weights=np.repeat(counts / shares, shares).astype(np.float32)[order],
        num_available=len(labels),
        seed=seed,
    )


def share_out(counts: np.ndarray, size: int) -> np.ndarray:
    """Returns how many to draw of each class: equal numbers as far as possible, and at least one."""
    shares = np.zeros(len(counts), np.int64)
    order = np.argsort(counts, kind="stable")
    left = max(size, len(counts))
    for done, row in enumerate(order):
        # Smallest classes first, so that larger ones make up for what they lack.
        shares[row] = min(counts[row], left // (len(counts) - done))
        left -= shares[row]
    return shares


def select_batch(split: str, num_available: int, number: int) -> Selection:
    """Returns the batch of 32 records with `number`, from 1; the last one may be smaller.

    Raises:
        ConfigError: The number is too large.
    """
    num_batches = -(-num_available // BATCH_SIZE)
    if number > num_batches:
        raise ConfigError(
            f"--batch {number}: the {split} split has {num_available:,} images, "
            f"{num_batches} {'batch' if num_batches == 1 else 'batches'} of {BATCH_SIZE}; give 1 to {num_batches}"
        )
    first = BATCH_SIZE * (number - 1)
    positions = np.arange(first, min(first + BATCH_SIZE, num_available))
    return Selection(
        rule="batch",
        split=split,
        positions=positions,
        weights=np.full(len(positions), num_available / len(positions), np.float32),
        num_available=num_available,
        batch=number,
    )
