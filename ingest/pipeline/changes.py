"""What an update changes, and whether that is plausible: the folder may be partly synced, or the wrong one."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from shardstream.ingest.common.errors import ConfigError, LimitError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.reuse import PreviousState

_MAX_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The differences from the previous dataset.

    Attributes:
        num_new: Number of added files.
        num_changed: Number of files with the same path and different content.
        num_touched: Number of files with the same path and another size, time or inode, whatever their content.
        num_gone: Number of removed files.
        num_moved: Number of files that changed their class: they have the content of a removed file, or the same path
            and another class in the table.
        num_renamed: Number of files with the content of a removed file of the same class.
        gone: The first few paths that were removed, moved or renamed.
        classes_added: Added classes.
        classes_removed: Removed classes.
        renumbered: The old and the new label of each class whose label changes.
    """

    num_new: int
    num_changed: int
    num_touched: int
    num_gone: int
    num_moved: int
    num_renamed: int
    gone: list[str]
    classes_added: list[str]
    classes_removed: list[str]
    renumbered: dict[str, tuple[int, int]]


def check_classes(old: DatasetInfo, listing: Listing, *, allow_class_changes: bool) -> None:
    """Refuses an update that removes a class or changes the label of one, unless allowed.

    Raises:
        ConfigError: The update would do so without `allow_class_changes`.
    """
    added, removed, renumbered = _class_changes(old, listing)
    if allow_class_changes or not (removed or renumbered):
        return
    parts = []
    if removed:
        parts.append(f"removed {', '.join(removed)}")
    if added:
        parts.append(f"added {', '.join(added)}")
    if renumbered:
        first = [f"{name} {before} -> {now}" for name, (before, now) in renumbered.items()][:_MAX_SHOWN]
        more = ", ..." if len(renumbered) > _MAX_SHOWN else ""
        parts.append(f"other label numbers: {', '.join(first)}{more}")
    raise ConfigError(
        f"{listing.root}: its classes are not those of {old.data_dir}: {'; '.join(parts)}. Models that were trained "
        "before rely on these numbers, and the folder may not be complete: --allow-class-changes goes on"
    )


def check_gone(
    old: DatasetInfo, listing: Listing, state: PreviousState, *, max_gone: float, num_reappeared: int | None
) -> None:
    """Refuses an update from a folder in which too many files are missing. Files of removed classes do not count.

    Args:
        old: The previous dataset.
        listing: The current files.
        state: What the previous dataset knows about them.
        max_gone: Maximum fraction of the previous dataset's files that may be missing.
        num_reappeared: How many of the missing files were found at another path; None before that is known.

    Raises:
        LimitError: Too many files are missing.
    """
    removed = {old.class_names.index(name) for name in _class_changes(old, listing)[1]}
    num_gone = sum(label not in removed for label in state.gone_labels)
    num_new = int((~state.found).sum())
    num_gone -= num_new if num_reappeared is None else num_reappeared
    if num_gone <= max_gone * state.num_before:
        return
    found = (
        "none of the files of the dataset is there: is it the right folder? " if not state.num_found else ""
    )
    raise LimitError(
        f"{listing.root}: {found}{num_gone:,} of {state.num_before:,} files are gone (such as "
        f"{', '.join(state.gone_paths[:_MAX_SHOWN])}), more than --max-gone {max_gone:g} allows; the dataset is as it "
        "was. Bring them back, or raise the limit"
    )


def find_changes(old: DatasetInfo, catalog: Catalog, state: PreviousState, known: np.ndarray) -> Changes:
    """Returns the differences after all files were processed.

    Args:
        old: The previous dataset.
        catalog: All files.
        state: What the previous dataset knows about them.
        known: The previous SHA-256 of each file, uint64 [files, 4].
    """
    labels_before = {name: label for label, name in enumerate(old.class_names)}
    gone: dict[bytes, int] = {}
    for number, label in enumerate(state.gone_labels):
        digest = bytes(state.gone_digests[32 * number : 32 * (number + 1)])
        if any(digest):
            gone[digest] = label
    new = np.flatnonzero(~state.found)
    num_moved = num_renamed = 0
    for row in new.tolist() if gone else []:
        label = gone.pop(catalog.digests[row].astype(">u8").tobytes(), None)
        if label is not None:
            is_renamed = labels_before.get(catalog.listing.class_names[catalog.labels[row]]) == label
            num_renamed += is_renamed
            num_moved += not is_renamed
    read_before = known.any(axis=1)
    changed = state.found & read_before & (catalog.digests != known).any(axis=1)
    added, removed, renumbered = _class_changes(old, catalog.listing)
    return Changes(
        num_new=len(new) - num_moved - num_renamed,
        num_changed=int(changed.sum()),
        num_touched=state.num_touched,
        num_gone=len(state.gone_labels) - num_moved - num_renamed,
        num_moved=num_moved + int((state.found & (state.labels != catalog.labels)).sum()),
        num_renamed=num_renamed,
        gone=state.gone_paths,
        classes_added=added,
        classes_removed=removed,
        renumbered=renumbered,
    )


def differs(old: DatasetInfo, catalog: Catalog, state: PreviousState, known: np.ndarray) -> bool:
    """Whether the new dataset differs from `old`, even in a single value of its manifest."""
    if state.is_of_old_layout or state.is_moved or catalog.listing.class_names != old.class_names:
        return True
    if len(state.gone_labels) or state.has_other_size or not state.found.all():
        return True
    if (catalog.digests != known).any() or (catalog.verdicts != state.verdicts).any():
        return True
    return any(catalog.reason(row) != reason for row, reason in state.reasons.items())


def _class_changes(
    old: DatasetInfo, listing: Listing
) -> tuple[list[str], list[str], dict[str, tuple[int, int]]]:
    """Returns the added classes, the removed classes, and those whose label changes."""
    before = {name: label for label, name in enumerate(old.class_names)}
    now = {name: label for label, name in enumerate(listing.class_names)}
    renumbered = {
        name: (before[name], now[name]) for name in now if name in before and before[name] != now[name]
    }
    return _missing(now, before), _missing(before, now), renumbered


def _missing(names: Sequence[str] | dict[str, int], there: dict[str, int]) -> list[str]:
    return [name for name in names if name not in there]
