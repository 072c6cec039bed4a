"""Assigns the files of a catalog to splits, keeping duplicates and groups together."""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, TRAIN, draw, splits_of, stratify
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.pipeline.catalog import Catalog, draw_rows
from shardstream.ingest.pipeline.listing import NO_SPLIT, shown
from shardstream.ingest.pipeline.look_alikes import NEITHER, compare
from shardstream.ingest.pipeline.near_duplicates import find_pairs, group_rows
from shardstream.ingest.pipeline.path_groups import find_groups

DUPLICATES, NEAR_DUPLICATES = "duplicates", "near-duplicates"


def group_pattern(keep_together: str) -> re.Pattern[str] | None:
    """Returns the compiled pattern if `keep_together` is a regular expression.

    Raises:
        ConfigError: It is neither one of the keywords nor a regular expression with a group.
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


def assign_splits(catalog: Catalog, rule: SplitRule, engine: Engine) -> None:
    """Sets the split of each kept file. The same content always gets the same split, whatever its path.

    Args:
        catalog: All files.
        rule: The fractions, and which files stay together.
        engine: The engine that compares possible near-duplicates.
    """
    rows = np.flatnonzero(catalog.kept()).astype(np.uint32)
    catalog.splits[:] = NO_SPLIT
    fractions, given = rule.fractions, catalog.listing.given_splits
    if len(given):
        # Splits that the source does not give are drawn from the training images.
        catalog.splits[rows] = given[rows]
        rows = rows[given[rows] == SPLIT_NAMES.index(TRAIN)]
        fractions = drawn_splits(catalog, rule)
    catalog.splits[rows] = _drawn(catalog, rows, rule, fractions, engine)


def drawn_splits(catalog: Catalog, rule: SplitRule) -> dict[str, float]:
    """Returns the held-out splits that the source does not give, with their fractions."""
    given = {SPLIT_NAMES[number] for number in np.unique(catalog.listing.given_splits).tolist()}
    return {name: fraction for name, fraction in rule.fractions.items() if name not in given}


def _drawn(
    catalog: Catalog,
    rows: npt.NDArray[np.uint32],
    rule: SplitRule,
    fractions: Mapping[str, float],
    engine: Engine,
) -> npt.NDArray[np.uint8]:
    """Returns the split of each row by the rule."""
    if rule.stratify:
        numbers = draw_rows(catalog, rows, rule.seed, "split")
        return stratify(numbers, catalog.labels[rows], fractions)
    leaders = _leaders(catalog, rows, engine) if rule.keep_together == NEAR_DUPLICATES else rows
    numbers = draw_rows(catalog, leaders, rule.seed, "split")
    if group_pattern(rule.keep_together):
        paths = (shown(catalog.listing.path(int(row))) for row in rows)
        for i, group in enumerate(find_groups(rule.keep_together, paths)):
            if group is not None:
                numbers[i] = draw(rule.seed, "split", b"group/" + group.encode())
    return splits_of(numbers, fractions)


def _leaders(catalog: Catalog, rows: npt.NDArray[np.uint32], engine: Engine) -> npt.NDArray[np.uint32]:
    """Returns for each row the leader of its group of near-duplicates, whose content determines the split of all."""
    members = np.flatnonzero(catalog.has_hash[rows])
    pairs = find_pairs(catalog.hashes[rows[members]])
    kinds = compare(catalog, rows[members[pairs]].astype(np.uint32), engine)
    groups = group_rows(len(members), pairs[kinds != NEITHER])
    # The smallest SHA-256 leads: it does not depend on names or on the order of the listing.
    order = np.lexsort((catalog.digests[rows[members], 0], groups))
    starts = np.flatnonzero(np.diff(groups[order].astype(np.int64), prepend=-1))
    sizes = np.diff(starts, append=len(order))
    leaders = rows.copy()
    leaders[members[order]] = rows[members[np.repeat(order[starts], sizes)]]
    return leaders
