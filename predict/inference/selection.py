"""Which records of a split are predicted, chosen by a rule and a seed before anything is predicted."""

import dataclasses
from typing import Literal

import numpy as np

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.labels import read_labels

Rule = Literal["all", "batch", "uniform", "stratified"]

# The batch of the notebook, which people still count in.
BATCH_SIZE = 32

DEFAULT_SPLIT = "validation"

Sampling = Literal["uniform", "stratified", "worst", "confident-errors", "borderline"]
# What can only be ranked once the whole split is predicted.
RANKED: tuple[Sampling, ...] = ("worst", "confident-errors", "borderline")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """The chosen records of a split.

    Attributes:
        rule: How they were chosen.
        split: The name of the split.
        positions: Ascending int64 positions in file order over all shards, counted from 0.
        weights: float32, how many records of the split each of them stands for.
        num_available: The number of records in the split.
        seed: What decided; None where nothing was drawn.
        batch: The number of the batch, counted from 1; None where no batch was asked for.
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
        """How many batches the split has."""
        return -(-self.num_available // BATCH_SIZE)

    @property
    def description(self) -> str:
        """How the records were chosen, for people."""
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
    """Returns the split that is meant where none is named: validation, or the only one.

    Raises:
        ConfigError: There are several, and none is called so.
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
    """Returns the records that the options ask for.

    Raises:
        ConfigError: There are not so many batches.
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
    """Returns `size` records, each equally likely and none twice, or all where there are not so many."""
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
    """Returns about `size` records, as many of each class as of any other where there are so many.

    A class with fewer gives all it has, and the others share the rest, so rare classes are seen. A record stands
    for as many as its class has for each one drawn: figures of the whole split weigh it so.

    Args:
        split: The name of the split.
        labels: int [num_available], the class of each record.
        size: How many to draw; one of each class is drawn even where that makes more.
        seed: Decides which.
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
    """Returns how many to draw of each class: the same of each, as far as there are so many, and at least one."""
    shares = np.zeros(len(counts), np.int64)
    order = np.argsort(counts, kind="stable")
    left = max(size, len(counts))
    for done, row in enumerate(order):
        # The small classes come first, so that what they lack goes to the larger ones.
        shares[row] = min(counts[row], left // (len(counts) - done))
        left -= shares[row]
    return shares


def select_batch(split: str, num_available: int, number: int) -> Selection:
    """Returns the batch of 32 records with `number` counted from 1; the last one may be shorter.

    Raises:
        ConfigError: There are not so many batches.
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
