"""Finds series by file names: consecutively numbered shots, and ids that several files share.

Images of one series look alike, and one of them in train leaks into held-out neighbors: the measured accuracy is too
high. Names only suggest a series; perceptual hashes tell whether its images are similar.
"""

import collections
import re

import numpy as np
import numpy.typing as npt

from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, TRAIN
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import NO_SPLIT, shown
from shardstream.ingest.pipeline.split_assignment import DUPLICATES

# A hundred million names would take minutes, and a sample gives the same answer.
_MAX_ROWS = 200_000
# Printed as the value for --keep-together, and used here to find the groups.
SHARED_ID = r"(?:^|/)([^/]*\d[^/]*)[_-][^/_-]*$"
BLOCKS_OF_TEN = r"^(.*)\d\.[^./]*$"
_NUMBERED = re.compile(r"^(.*?)(\d{1,15})(\D*)$", re.DOTALL)
_MIN_PAIRS = 20
_MIN_GROUPS = 10
_MAX_GROUP_FRACTION = 0.1
_MIN_GROUPED_FRACTION = 0.2
_MIN_CONCERNED = 5
# Hashes of unrelated images differ in 32 of 64 bits on average; those of neighbors in a series in clearly fewer.
_NEAR_BITS = 20
_MIN_NEAR_FRACTION, _MIN_NEAR_RATIO = 0.2, 3.0


def series_notes(catalog: Catalog, rule: SplitRule, layout: Layout) -> list[str]:
    """Returns notes on series that are spread over several splits, with the option that keeps them together."""
    if layout.has_given_splits or rule.keep_together != DUPLICATES:
        return []  # The user gave the splits, or already chose which files stay together.
    rows = np.flatnonzero(catalog.kept())[:_MAX_ROWS]
    paths = [shown(catalog.listing.path(row)) for row in rows.tolist()]
    splits = catalog.splits[rows]
    held_out = int(((splits != SPLIT_NAMES.index(TRAIN)) & (splits != NO_SPLIT)).sum())
    if note := _shared_ids(paths, splits, held_out):
        return [note]
    if note := _numbered(
        paths, splits, catalog.labels[rows], catalog.hashes[rows] * catalog.has_hash[rows], held_out
    ):
        return [note]
    return []


def _shared_ids(paths: list[str], splits: npt.NDArray[np.uint8], held_out: int) -> str:
    pattern = re.compile(SHARED_ID)
    groups: dict[str, list[int]] = collections.defaultdict(list)
    for i, path in enumerate(paths):
        if match := pattern.search(path):
            groups[match[1]].append(i)
    shared = {name: members for name, members in groups.items() if len(members) > 1}
    sizes = [len(members) for members in shared.values()]
    if len(shared) < _MIN_GROUPS or sum(sizes) < _MIN_GROUPED_FRACTION * len(paths):
        return ""
    if max(sizes) > _MAX_GROUP_FRACTION * len(paths):
        return ""
    train = SPLIT_NAMES.index(TRAIN)
    concerned, example = 0, ""
    for members in shared.values():
        if (splits[members] == train).any():
            outside = [i for i in members if splits[i] != train]
            concerned += len(outside)
            example = example or next(
                (f"{paths[i]} and {_first(paths, members, splits)}" for i in outside), ""
            )
    if concerned < _MIN_CONCERNED:
        return ""
    return (
        f"{concerned:,} of {held_out:,} held-out images share an id in their names with training images, such as "
        f"{example}; if that is one patient, house or product, keep its images in one split: --keep-together "
        f"'{SHARED_ID}'"
    )


def _first(paths: list[str], members: list[int], splits: npt.NDArray[np.uint8]) -> str:
    return next(paths[i] for i in members if splits[i] == SPLIT_NAMES.index(TRAIN))


def _numbered(
    paths: list[str],
    splits: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint32],
    hashes: npt.NDArray[np.uint64],
    held_out: int,
) -> str:
    places: dict[tuple[str, str, int], int] = {}
    for i, path in enumerate(paths):
        if match := _NUMBERED.match(path):
            places[match[1], match[3], int(match[2])] = i
    neighbors = np.array(
        [(i, after) for (a, b, n), i in places.items() if (after := places.get((a, b, n + 1))) is not None],
        np.intp,
    ).reshape(-1, 2)
    hashed = neighbors[(hashes[neighbors] != 0).all(axis=1)]
    if len(hashed) < _MIN_PAIRS or not _are_alike(hashed, labels, hashes):
        return ""
    train = SPLIT_NAMES.index(TRAIN)
    apart = neighbors[(splits[neighbors] == train).sum(axis=1) == 1]
    concerned = np.unique(apart[splits[apart] != train])
    if len(concerned) < _MIN_CONCERNED:
        return ""
    one, other = apart[0].tolist()
    return (
        f"{len(concerned):,} of {held_out:,} held-out images follow a training image by the number in their names and "
        f"resemble it, such as {paths[one]} and {paths[other]}; if these are shots of one scene, hold out blocks: "
        f"--keep-together '{BLOCKS_OF_TEN}'"
    )


def _are_alike(
    neighbors: npt.NDArray[np.intp], labels: npt.NDArray[np.uint32], hashes: npt.NDArray[np.uint64]
) -> bool:
    """Whether images with neighboring numbers are more similar than other images of their class."""
    ones = neighbors[:, 0]
    order = ones[np.argsort(labels[ones], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    # The baseline: images half a class apart, which are also far apart by number.
    place = np.arange(len(order)) - np.repeat(starts, counts)
    others = order[
        np.repeat(starts, counts) + (place + np.repeat(counts, counts) // 2) % np.repeat(counts, counts)
    ]
    same_class = order != others
    near = np.bitwise_count(hashes[ones] ^ hashes[neighbors[:, 1]]) <= _NEAR_BITS
    usual = np.bitwise_count(hashes[order] ^ hashes[others])[same_class] <= _NEAR_BITS
    usual_fraction = float(usual.mean()) if len(usual) else 0.0
    return bool(near.mean() >= max(_MIN_NEAR_FRACTION, _MIN_NEAR_RATIO * usual_fraction))
