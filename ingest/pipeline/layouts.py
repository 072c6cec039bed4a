"""Maps folders to classes and splits: the top folders, those below given splits, another level, or the deepest ones."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.layout_hints import (
    case_note,
    nested_note,
    refuse_few_classes,
    refuse_no_splits,
    refuse_split_folders,
    refuse_split_names,
    refuse_strange_splits,
    sample,
)
from shardstream.ingest.pipeline.listing import NO_SPLIT, Found, Listing, shown
from shardstream.ingest.pipeline.split_folders import split_folders

_NONE = -1


@dataclasses.dataclass(frozen=True, slots=True)
class _Folders:
    """The class and split of each folder.

    Attributes:
        classes: The class of the files in each folder, an index into `names`, or -1, int64 [folders].
        splits: Their split, an index into SPLIT_NAMES, or NO_SPLIT, uint8 [folders].
        names: The class names in the order they were found.
        parents: The parent folders of each class.
    """

    classes: npt.NDArray[np.int64]
    splits: npt.NDArray[np.uint8]
    names: list[str]
    parents: list[set[str]]


def by_folders(root: Path, found: Found, layout: Layout, class_names: Sequence[str]) -> Listing:
    """Returns the files with the classes that their folders give them.

    Args:
        root: The source, for errors.
        found: Its files.
        layout: Which folders are the classes.
        class_names: The classes in label order; sorted by name if empty.

    Raises:
        DatasetError: There are fewer than two classes, a class has no files, or class names collide.
        ConfigError: The classes are not `class_names`.
    """
    given = _given_splits(root, found) if layout.splits_from_folders else {}
    folders = _read_folders(root, found, layout, given)
    if not layout.splits_from_folders and not class_names:
        refuse_split_folders(root, found)
    names = order_classes(root, folders.names, class_names)
    if len(names) < 2:
        refuse_few_classes(root, found, layout, names)
    if not layout.splits_from_folders and not class_names:
        refuse_split_names(root, names)
    notes = nested_note(found, is_below_splits=bool(given)) if layout.class_depth == 1 else []
    listing = _with_classes(found, folders, names, has_splits=bool(given))
    _check_none_empty(root, listing, folders, layout)
    refuse_strange_splits(root, _classes_of_splits(listing))
    listing.notes += [*notes, *case_note(names)]
    return listing


def order_classes(root: Path, found: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes in label order.

    Raises:
        ConfigError: `class_names` are not the classes that were found.
    """
    wanted = tuple(unicodedata.normalize("NFC", name) for name in class_names) or tuple(sorted(found))
    missing, unnamed = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unnamed or len(wanted) != len(found):
        parts = [f"{root} has no {sample(missing)}"] if missing else []
        parts += [f"{sample(unnamed)} {'is' if len(unnamed) == 1 else 'are'} not named"] if unnamed else []
        what = " and ".join(parts) or "a name is there twice"
        raise ConfigError(f"--class-names do not match the classes in {root}: {what}")
    return wanted


def class_name(root: Path, name: str) -> str:
    """Returns the display name of a class, in composed form (NFC).

    Raises:
        DatasetError: The name does not fit on one line.
    """
    # macOS stores "음" as three code points (NFD), other systems as one (NFC): the same name to the user.
    name = unicodedata.normalize("NFC", shown(name))
    if name != name.strip() or "\n" in name:
        shortened = f"{name[:60]}..." if len(name) > 60 else name
        raise DatasetError(f"{root}: class {shortened!r} has spaces or line breaks around it; rename it")
    return name


def _given_splits(root: Path, found: Found) -> dict[str, str]:
    """Returns the splits by the names of their top folders."""
    tops = [path for path in found.folders[1:] if "/" not in path]
    splits = split_folders(tops)
    if not splits:
        refuse_no_splits(root, found)
    counts = _files_below_tops(found)
    others = [top for top in tops if top not in splits and counts.get(top)]
    if others:
        raise DatasetError(
            f"{root}: {sample(others)} beside {sample(sorted(splits))}: no split that --splits-from-folders knows; "
            f"leave it out with --exclude {others[0]}, or rename it"
        )
    for split in sorted(set(splits.values())):
        same = [top for top in splits if splits[top] == split]
        if len(same) > 1:
            raise DatasetError(
                f"{root}: {' and '.join(same)} both mean the split {split!r}; leave out one with --exclude"
            )
    return splits


def _files_below_tops(found: Found) -> dict[str, int]:
    counts: dict[str, int] = {}
    of_folders = np.bincount(found.listing.labels, minlength=len(found.folders))
    for path, count in zip(found.folders, of_folders.tolist(), strict=True):
        top = path.split("/")[0]
        counts[top] = counts.get(top, 0) + count
    return counts


def _read_folders(root: Path, found: Found, layout: Layout, given: Mapping[str, str]) -> _Folders:
    numbers: dict[str, int] = {}
    parents: list[set[str]] = []
    classes = np.full(len(found.folders), _NONE, np.int64)
    splits = np.full(len(found.folders), NO_SPLIT, np.uint8)
    spelled: dict[tuple[str, str], str] = {}
    counts = np.bincount(found.listing.labels, minlength=len(found.folders))
    for i, path in enumerate(found.folders):
        if layout.class_depth is None and not counts[i]:
            continue  # A folder without files of its own is not a class at any depth.
        parts = path.split("/") if path else []
        above = 0
        if given:
            if not parts or parts[0] not in given:
                continue
            splits[i], above = SPLIT_NAMES.index(given[parts[0]]), 1
        level = len(parts) if layout.class_depth is None else above + layout.class_depth
        if len(parts) < level or level == above:
            continue
        parent, entry = "/".join(parts[: level - 1]), parts[level - 1]
        name = class_name(root, entry)
        if (before := spelled.setdefault((parent, name), entry)) != entry:
            raise DatasetError(
                f"{root}: two classes are called {name!r} ({before.encode(errors='surrogateescape')!r} and "
                f"{entry.encode(errors='surrogateescape')!r} to the disk); rename one"
            )
        classes[i] = numbers.setdefault(name, len(numbers))
        if classes[i] == len(parents):
            parents.append(set())
        parents[classes[i]].add("/".join(parts[above : level - 1]))
    if layout.include:  # A folder without included files is not a class.
        numbers, parents = _forget_empty(found, numbers, parents, classes)
    if layout.class_depth is None:
        _check_one_parent(root, numbers, parents)
    return _Folders(classes, splits, list(numbers), parents)


def _forget_empty(
    found: Found, numbers: Mapping[str, int], parents: list[set[str]], classes: npt.NDArray[np.int64]
) -> tuple[dict[str, int], list[set[str]]]:
    """Returns the classes that have files, and renumbers `classes` without gaps."""
    of_files = classes[found.listing.labels]
    used = np.unique(of_files[of_files >= 0])
    classes[~np.isin(classes, used)] = _NONE
    classes[classes >= 0] = np.searchsorted(used, classes[classes >= 0])
    names = list(numbers)
    return {names[old]: new for new, old in enumerate(used.tolist())}, [parents[old] for old in used.tolist()]


def _check_one_parent(root: Path, numbers: Mapping[str, int], parents: Sequence[set[str]]) -> None:
    for name, number in numbers.items():
        if len(parents[number]) > 1:
            one, other = sorted(parents[number])[:2]
            raise DatasetError(
                f"{root}: --class-depth deepest: two folders are called {name!r}, in {one or root} and in "
                f"{other or root}; rename one, or choose a level with --class-depth N"
            )


def _with_classes(found: Found, folders: _Folders, names: tuple[str, ...], *, has_splits: bool) -> Listing:
    """Returns the files that are in a class; the others are counted."""
    final = {name: label for label, name in enumerate(names)}
    label_of_class = np.array([final[name] for name in folders.names], np.int64)
    of_folder = np.where(folders.classes >= 0, label_of_class[folders.classes], _NONE)
    folder_of_file = found.listing.labels
    labels, splits = of_folder[folder_of_file], folders.splits[folder_of_file]
    listing = found.listing
    if (labels < 0).any():
        rows = np.flatnonzero(labels >= 0)
        listing.skipped["outside any class folder"] += len(labels) - len(rows)
        listing, labels, splits = listing.select(rows), labels[rows], splits[rows]
    listing.set_classes(names, labels.astype(np.uint32), splits if has_splits else np.empty(0, np.uint8))
    return listing


def _classes_of_splits(listing: Listing) -> dict[str, list[str]]:
    """Returns the classes that have files in each of the given splits."""
    if not len(listing.given_splits):
        return {}
    num_classes = len(listing.class_names)
    places = listing.given_splits.astype(np.int64) * num_classes + listing.labels
    counts = np.bincount(places, minlength=(NO_SPLIT + 1) * num_classes).reshape(-1, num_classes)
    return {
        name: [listing.class_names[label] for label in np.flatnonzero(counts[split]).tolist()]
        for split, name in enumerate(SPLIT_NAMES)
        if counts[split].any()
    }


def _check_none_empty(root: Path, listing: Listing, folders: _Folders, layout: Layout) -> None:
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    empty = [name for name, count in zip(listing.class_names, counts.tolist(), strict=True) if not count]
    if empty and not layout.include:
        where = next(iter(sorted(folders.parents[folders.names.index(empty[0])])))
        folder = root / where / empty[0]
        raise DatasetError(
            f"{folder}: a class folder without images; add images, remove it, or leave it out with --exclude "
            f"{empty[0]}"
        )
