"""Which split each file of a catalog goes to, and what lies in two splits that should not."""

import re

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.split_hash import draw, splits_of, stratify
from shardstream.ingest.pipeline.catalog import NO_SPLIT, Catalog, draw_rows
from shardstream.ingest.pipeline.near_duplicates import find_pairs, group_rows, straddling
from shardstream.ingest.pipeline.path_groups import find_groups
from shardstream.ingest.pipeline.scan import shown

DUPLICATES, NEAR_DUPLICATES = "duplicates", "near-duplicates"


def group_pattern(keep_together: str) -> re.Pattern[str] | None:
    """Returns what finds the group of a file in its path, if `keep_together` is a regular expression.

    Raises:
        ConfigError: It is none of the words, and no regular expression with a group.
    """
    if keep_together in {DUPLICATES, NEAR_DUPLICATES}:
        return None
    try:
        pattern = re.compile(keep_together)
    except re.error as error:
        raise ConfigError(f"--keep-together {keep_together}: not a regular expression: {error}") from None
    if not pattern.groups:
        raise ConfigError(
            f"--keep-together {keep_together}: neither {DUPLICATES} nor {NEAR_DUPLICATES}, and a regular expression "
            'without a group: put what files share into "( )"'
        )
    return pattern


def assign_splits(catalog: Catalog, rule: SplitRule) -> None:
    """Sets the split of each kept file: identical content, wherever it lies, always goes to the same one.

    Args:
        catalog: All files.
        rule: The shares, and what goes together.
    """
    rows = np.flatnonzero(catalog.kept()).astype(np.uint32)
    catalog.splits[:] = NO_SPLIT
    if rule.stratify:
        numbers = draw_rows(catalog, rows, rule.seed, "split")
        catalog.splits[rows] = stratify(numbers, catalog.labels[rows], rule.fractions)
        return
    leaders = _leaders(catalog, rows) if rule.keep_together == NEAR_DUPLICATES else rows
    numbers = draw_rows(catalog, leaders, rule.seed, "split")
    if group_pattern(rule.keep_together):
        paths = (shown(catalog.listing.path(int(row))) for row in rows)
        for i, group in enumerate(find_groups(rule.keep_together, paths)):
            if group is not None:
                numbers[i] = draw(rule.seed, "split", b"group/" + group.encode())
    catalog.splits[rows] = splits_of(numbers, rule.fractions)


def find_leaks(catalog: Catalog) -> npt.NDArray[np.uint32]:
    """Returns the pairs of rows, [pairs, 2], that look alike and yet lie in different splits."""
    rows = np.flatnonzero(catalog.kept() & catalog.has_hash).astype(np.uint32)
    pairs = rows[find_pairs(catalog.hashes[rows])]
    return straddling(pairs, catalog.splits)


def _leaders(catalog: Catalog, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Returns for each row the row of its group of pictures that look alike whose content decides for all."""
    members = np.flatnonzero(catalog.has_hash[rows])
    groups = group_rows(len(members), find_pairs(catalog.hashes[rows[members]]))
    # The smallest SHA-256 leads: it does not depend on names or on the order of the listing.
    order = np.lexsort((catalog.digests[rows[members], 0], groups))
    starts = np.flatnonzero(np.diff(groups[order].astype(np.int64), prepend=-1))
    sizes = np.diff(starts, append=len(order))
    leaders = rows.copy()
    leaders[members[order]] = rows[members[np.repeat(order[starts], sizes)]]
    return leaders
