"""Issues to look at before training on a dataset: rejected files, leaks between splits, classes to check."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from shardstream.ingest.dataset.class_counts import missing_class_notes
from shardstream.ingest.dataset.look_alikes import LookAlikes, PathPair
from shardstream.ingest.dataset.manifest_reasons import read_reasons
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.catalog import Catalog, rejected_files
from shardstream.ingest.pipeline.listing import shown
from shardstream.ingest.pipeline.results import CONFLICT, DUPLICATE, REPAIRED
from shardstream.ingest.pipeline.series import series_notes

_MAX_FILES = 10
_MAX_NAMED = 3
_LOSSES = ("first frame", "to 8", "transparen")
# The perceptual hashes of single-color images: only the lowest frequency, or none if the image is black.
_FLAT_HASHES = np.array([0, 1 << 63], np.uint64)


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """Issues in a dataset that deserve a look.

    Attributes:
        rejections: The number of rejected files by reason, without its details.
        rejected: Path and reason of the first few of them.
        look_alikes: Near-duplicate images in different splits; None if they were not searched for.
        notes: Other notes, in sentences.
        repairs: The number of repaired files by kind of repair.
        lossy: Path and repair of the first few files with a lossy repair.
        conflicts: Path and reason of the first few files that were dropped because several classes have their content.
    """

    rejections: dict[str, int]
    rejected: list[tuple[str, str]]
    look_alikes: LookAlikes | None
    notes: list[str]
    repairs: dict[str, int] = dataclasses.field(default_factory=dict)
    lossy: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    conflicts: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def leaks(self) -> Sequence[PathPair]:
        """The paths of the first pairs of one image in different splits."""
        return self.look_alikes.same if self.look_alikes else ()


def find_issues(catalog: Catalog, info: DatasetInfo) -> Findings:
    """Returns the issues of a newly built dataset."""
    repaired = list(_files_of(catalog, REPAIRED))
    return Findings(
        _count_reasons(collections.Counter(reason for _, reason in rejected_files(catalog))),
        list(itertools.islice(rejected_files(catalog), _MAX_FILES)),
        info.look_alikes,
        [
            *catalog.listing.notes,
            *missing_class_notes(info),
            *_copies_in_given_splits(catalog),
            *series_notes(catalog, info.split_rule, info.layout),
            *_flat_images(catalog),
            *_size_hint(catalog, info),
        ],
        _count_reasons(collections.Counter(reason for _, reason in repaired)),
        [(path, reason) for path, reason in repaired if _is_lossy(reason)][:_MAX_FILES],
        list(itertools.islice(_files_of(catalog, CONFLICT), _MAX_FILES)),
    )


def _files_of(catalog: Catalog, verdict: int) -> Iterator[tuple[str, str]]:
    for row in np.flatnonzero(catalog.verdicts == verdict).tolist():
        yield shown(catalog.listing.path(row)), catalog.reason(row)


def _is_any(_: str) -> bool:
    return True


def _is_lossy(repair: str) -> bool:
    """Whether a repair lost part of the image: frames, bit depth or transparency."""
    return any(words in repair for words in _LOSSES)


def look_through_manifest(info: DatasetInfo) -> Findings:
    """Returns the issues of a dataset on disk, from its manifest.

    Raises:
        DatasetError: Its manifest is missing or corrupt.
    """
    named = {"rejected": _is_any, "repaired": _is_lossy, "conflict": _is_any}
    found = read_reasons(info, named, max_files=_MAX_FILES)
    return Findings(
        _count_reasons(found["rejected"].counts),
        found["rejected"].files,
        info.look_alikes,
        missing_class_notes(info),
        _count_reasons(found["repaired"].counts),
        found["repaired"].files,
        found["conflict"].files,
    )


def _copies_in_given_splits(catalog: Catalog) -> list[str]:
    """Returns a note on images that the source has in several of its splits."""
    given = catalog.listing.given_splits
    if not len(given):
        return []
    rows = np.flatnonzero((catalog.verdicts == DUPLICATE) & (given != given[catalog.originals]))
    if not len(rows):
        return []
    path = catalog.listing.path
    pairs = [
        f"{shown(path(row))} = {shown(path(int(catalog.originals[row])))}"
        for row in rows[:_MAX_NAMED].tolist()
    ]
    more = f" and {len(rows) - _MAX_NAMED:,} more" if len(rows) > _MAX_NAMED else ""
    note = (
        f"{len(rows):,} images are in more than one of the given splits, and were kept in {SPLIT_NAMES[2]}, else in "
        f"{SPLIT_NAMES[1]}: {', '.join(pairs)}{more}"
    )
    return [note]


def _flat_images(catalog: Catalog) -> list[str]:
    rows = np.flatnonzero(catalog.kept() & catalog.has_hash & np.isin(catalog.hashes, _FLAT_HASHES))
    if not len(rows):
        return []
    paths = ", ".join(shown(catalog.listing.path(row)) for row in rows[:_MAX_NAMED].tolist())
    more = f" and {len(rows) - _MAX_NAMED:,} more" if len(rows) > _MAX_NAMED else ""
    what = "1 image is" if len(rows) == 1 else f"{len(rows):,} images are"
    return [f"{what} of one color, or nearly: {paths}{more}"]


def _size_hint(catalog: Catalog, info: DatasetInfo) -> list[str]:
    """Returns a note if every image is upscaled, which costs space and time and adds nothing."""
    size, largest, kept = info.image.size, info.largest_source_side, catalog.kept()
    if size is None or largest is None or largest >= size:
        return []
    height, width = int(catalog.heights[kept].max()), int(catalog.widths[kept].max())
    source_bytes = int(catalog.listing.sizes[kept].sum())
    stored_bytes = sum(split.num_bytes for split in info.splits.values())
    note = (
        f"no image is larger than {width}x{height}, and {size}x{size} pixels are stored of each; "
        f"--image-size {largest} shows as much with {size**2 / largest**2:.3g} times fewer pixels to store "
        f"and to train on (files of {source_bytes / 1e6:.3g} MB became {stored_bytes / 1e6:.3g} MB)"
    )
    return [note]


def _count_reasons(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the number of files by reason without its details, the most frequent first."""
    found: collections.Counter[str] = collections.Counter()
    for reason, count in counts.items():
        found[reason.split(":")[0]] += count
    return dict(found.most_common())
