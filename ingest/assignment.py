"""Which split each file of a catalog goes to, and what lies in two splits that should not."""

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ingest.catalog import NO_SPLIT, Catalog, draw_rows
from ingest.errors import ConfigError
from ingest.metadata import SplitRule
from ingest.near_duplicates import find_pairs, group_rows, straddling
from ingest.scan import shown
from ingest.splits import draw, splits_of, stratify

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
    leaders = rows
    if rule.keep_together == NEAR_DUPLICATES:
        leaders = _leaders(catalog, rows)
    catalog.splits[rows] = splits_of(draw_rows(catalog, leaders, rule.seed, "split"), rule.fractions)
    if pattern := group_pattern(rule.keep_together):
        for row, group in _groups(catalog, rows, pattern):
            number = np.uint64(draw(rule.seed, "split", b"group/" + group.encode()))
            catalog.splits[row] = splits_of(np.array([number]), rule.fractions)[0]


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
    _, starts = np.unique(groups[order], return_index=True)
    leader_of_group = dict(zip(groups[order][starts].tolist(), order[starts].tolist(), strict=True))
    leaders = rows.copy()
    leaders[members] = rows[members[[leader_of_group[group] for group in groups.tolist()]]]
    return leaders


def _groups(
    catalog: Catalog, rows: npt.NDArray[np.uint32], pattern: re.Pattern[str]
) -> Iterator[tuple[int, str]]:
    """Yields each of `rows` that `pattern` matches, and the name of its group."""
    for row in rows.tolist():
        match = pattern.search(shown(catalog.listing.path(row)))
        if match and match[1] is not None:
            yield row, match[1]
