"""What is worth a look before a dataset is trained on: rejected files, and look-alikes in different splits."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from shardstream.ingest.dataset.manifest import read_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.catalog import Catalog, rejected_files
from shardstream.ingest.pipeline.near_duplicates import find_pairs, straddling
from shardstream.ingest.pipeline.results import CONFLICT, REPAIRED
from shardstream.ingest.pipeline.scan import shown
from shardstream.ingest.pipeline.split_assignment import find_leaks

_MAX_REJECTED = 10
_MAX_CONFLICTS = 10
_LOSSES = ("first frame", "to 8", "to sRGB", "transparen")
_MAX_LEAKS = 1000  # There may be as many as pictures.


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """What is worth a look.

    Attributes:
        rejections: The number of rejected files by reason, without its details.
        rejected: Path and reason of the first few of them.
        num_leaks: The number of pairs of pictures that look alike and lie in different splits.
        leaks: The paths of the first of these pairs, at most 1,000.
        repairs: The number of repaired files by what was done.
        lossy: Path and repair of the first few of those that lost something by it.
        conflicts: Path and reason of the first few files that were left out, as several classes have their content.
    """

    rejections: dict[str, int]
    rejected: list[tuple[str, str]]
    num_leaks: int
    leaks: list[tuple[str, str]]
    repairs: dict[str, int] = dataclasses.field(default_factory=dict)
    lossy: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    conflicts: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def find_issues(catalog: Catalog) -> Findings:
    """Returns what is worth a look in a dataset that has just been made, whose records are forgotten for it."""
    paths = catalog.listing.path
    repaired = list(_files_of(catalog, REPAIRED))
    conflicts = list(itertools.islice(_files_of(catalog, CONFLICT), _MAX_CONFLICTS))
    catalog.forget_records()
    pairs = find_leaks(catalog)
    return Findings(
        _count_reasons(reason for _, reason in rejected_files(catalog)),
        list(itertools.islice(rejected_files(catalog), _MAX_REJECTED)),
        len(pairs),
        [(shown(paths(one)), shown(paths(other))) for one, other in pairs[:_MAX_LEAKS].tolist()],
        _count_reasons(reason for _, reason in repaired),
        [(path, reason) for path, reason in repaired if _is_lossy(reason)][:_MAX_CONFLICTS],
        conflicts,
    )


def _files_of(catalog: Catalog, verdict: int) -> Iterator[tuple[str, str]]:
    for row in np.flatnonzero(catalog.verdicts == verdict).tolist():
        yield shown(catalog.listing.path(row)), catalog.reason(row)


def _is_lossy(repair: str) -> bool:
    """Whether something of the image was lost by a repair: frames, depth or transparency."""
    return any(words in repair for words in _LOSSES)


def look_through_manifest(info: DatasetInfo) -> Findings:
    """Returns what is worth a look in a dataset on disk.

    Raises:
        DatasetError: Its manifest is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["path", "verdict", "reason", "split", "perceptual_hash"]
    batches = [rows.select(columns) for rows in read_rows(info)]
    table = pa.Table.from_batches(batches).unify_dictionaries() if batches else None
    if table is None:
        return Findings({}, [], 0, [])
    rejected = table.filter(pc.field("verdict") == "rejected").select(["path", "reason"]).to_pylist()
    repaired, conflicts = (
        table.filter(pc.field("verdict") == verdict).select(["path", "reason"]).to_pylist()
        for verdict in ("repaired", "conflict")
    )
    hashed = table.filter(pc.field("split").is_valid() & pc.field("perceptual_hash").is_valid())
    hashes = hashed["perceptual_hash"].to_numpy()
    splits = np.array([SPLIT_NAMES.index(split) for split in hashed["split"].to_pylist()], np.uint8)
    pairs = straddling(find_pairs(hashes), splits)
    paths = hashed["path"]
    return Findings(
        _count_reasons(row["reason"] for row in rejected),
        [(row["path"], row["reason"]) for row in rejected[:_MAX_REJECTED]],
        len(pairs),
        [(paths[one].as_py(), paths[other].as_py()) for one, other in pairs[:_MAX_LEAKS].tolist()],
        _count_reasons(row["reason"] for row in repaired),
        [(row["path"], row["reason"]) for row in repaired if _is_lossy(row["reason"])][:_MAX_CONFLICTS],
        [(row["path"], row["reason"]) for row in conflicts[:_MAX_CONFLICTS]],
    )


def _count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(reason.split(":")[0] for reason in reasons).most_common())
