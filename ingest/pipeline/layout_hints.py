"""Error messages and notes for sources with an unexpected layout."""

import collections
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import TRAIN
from shardstream.ingest.pipeline.listing import Found, shown
from shardstream.ingest.pipeline.split_folders import split_folders, split_of_word

_MAX_NAMED = 3
_TABLES = (".csv", ".tsv")
_FORMATS = (
    (
        re.compile(r"\.tfrecords?(-\d+-of-\d+|$)"),
        "a dataset of TFRecord files",
        "`shardstream-train` reads it as it is",
    ),
    (
        re.compile(r"\.(parquet|arrow|feather)$"),
        "a dataset in Parquet or Arrow files",
        "write its images as files first",
    ),
    (
        re.compile(r"\.(tar|tar\.gz|tgz)$"),
        "WebDataset shards, or archives",
        "unpack them into class folders first",
    ),
    (re.compile(r"\.(zip|7z|rar)$"), "archives", "unpack them, or give one of them as IMAGES"),
    (re.compile(r"\.(h5|hdf5|npy|npz|mat|mdb|beton|rec)$"), "arrays", "write its images as files first"),
)


def sample(names: Sequence[str]) -> str:
    """Returns the first few of `names`, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(map(shown, names[:_MAX_NAMED]))}{more}"


def refuse_split_folders(root: Path, found: Found) -> None:
    """Raises a DatasetError if the top folders are splits and not classes."""
    below = _folders_below(found)
    tops = below[""]
    splits = split_folders(tops)
    if len(set(splits.values())) < 2:
        return
    names = sorted(splits, key=tops.index)
    wrapped = {top: _without_repetition(top, below) for top in names}
    inner = {top: set(below[wrapped[top]]) for top in names}
    depth = max(path.count("/") for path in wrapped.values()) + 1
    options = "--splits-from-folders" + (f" --class-depth {depth}" if depth > 1 else "")
    if not any(inner[top] for top in names):
        if len(splits) == len(tops):
            _refuse_flat_splits(root, found, names)
        return
    overlaps = any(inner[one] & inner[other] for one in names for other in names if one != other)
    if overlaps or len(splits) == len(tops):
        raise DatasetError(
            f"{root}: {sample(names)} are splits, not classes; with {options} each image stays in the "
            "split of its folder, and the folders inside are the classes (classes after all? Name them with "
            "--class-names)"
        )


def _folders_below(found: Found) -> dict[str, list[str]]:
    """Returns the names of the sub-folders of each folder."""
    below: dict[str, list[str]] = collections.defaultdict(list)
    for path in found.folders[1:]:
        parent, _, name = path.rpartition("/")
        below[parent].append(name)
    return below


def _without_repetition(path: str, below: dict[str, list[str]]) -> str:
    """Returns the folder that holds the classes if unpacking turned "train" into "train/train"."""
    while len(below[path]) == 1 and (
        below[path][0] == path.rpartition("/")[2] or split_of_word(below[path][0])
    ):
        path = f"{path}/{below[path][0]}"
    return path


def refuse_split_names(root: Path, names: Sequence[str]) -> None:
    """Raises a DatasetError if the classes found below the first level are splits."""
    splits = split_folders(names)
    if len(splits) == len(names) and len(set(splits.values())) > 1:
        raise DatasetError(
            f"{root}: the folders at this --class-depth are splits, not classes: {sample(names)}; move them above the "
            "classes and give --splits-from-folders (classes after all? Name them with --class-names)"
        )


def refuse_no_splits(root: Path, found: Found) -> NoReturn:
    """Raises a DatasetError that no top folder is a split, and says where such folders are."""
    below = _folders_below(found)
    path = ""
    while len(below[path]) == 1:
        path = f"{path}/{below[path][0]}".lstrip("/")
    hint = f"; did you mean {root / path}?" if path and split_folders(below[path]) else ""
    raise DatasetError(
        f"{root}: --splits-from-folders: no folder is called train, validation or test; there is "
        f"{sample(below['']) or 'no folder'}{hint}"
    )


def refuse_strange_splits(root: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Raises a DatasetError if a split shares no class with the training split.

    Args:
        root: The source.
        classes: The classes of each split.
    """
    trained = classes.get(TRAIN, ())
    for split, names in classes.items():
        if trained and not set(names) & set(trained):
            raise DatasetError(
                f"{root}: the folders in the split {split!r} are {sample(names)}, none of the classes of {TRAIN!r} "
                f"({sample(trained)}); if the classes lie deeper give --class-depth 2, else leave out that split with "
                "--exclude, or give its classes with a table, --labels FILE.csv"
            )


def _refuse_flat_splits(root: Path, found: Found, names: Sequence[str]) -> NoReturn:
    table = _likely_table(found)
    table = f", such as --labels {shown(str(root / table))}" if table else ""
    raise DatasetError(
        f"{root}: {sample(names)} are splits, not classes, and hold images without class folders; give their classes "
        f"with a table of labels, --labels FILE.csv{table}"
    )


def refuse_few_classes(root: Path, found: Found, layout: Layout, names: Sequence[str]) -> NoReturn:
    """Raises a DatasetError that says what was found instead of at least two classes."""
    _refuse_formats(root, found)
    _refuse_outside_links(root, found)
    table = _table_hint(root, found)
    if names and layout.class_depth is not None:
        if where := _folder_of_classes(found, names[0] if not layout.splits_from_folders else ""):
            depth = where.count("/") + 2
            hint = (
                f"did you mean {root / where}?" if root.is_dir() else f"did you mean --class-depth {depth}?"
            )
            raise DatasetError(
                f"{root}: only one class ({names[0]}), a classifier needs at least two; {hint} It has the folders "
                f"{sample(_children(found, where))}{table}"
            )
        raise DatasetError(f"{root}: only one class ({names[0]}), a classifier needs at least two{table}")
    if names:
        raise DatasetError(f"{root}: only one class ({names[0]}), a classifier needs at least two{table}")
    in_root = int((found.listing.labels == 0).sum())
    what = f"{in_root:,} files directly in it and no class folders" if in_root else "no class folders in it"
    hint = table or (
        "; move the images of each class into a folder of their own, or give their classes with a table of labels, "
        "--labels FILE.csv"
    )
    raise DatasetError(f"{root}: {what}{hint}")


def _refuse_formats(root: Path, found: Found) -> None:
    listing = found.listing
    names = [*found.top_names, *(listing.path(row) for row in range(min(len(listing), 1000)))]
    for pattern, what, remedy in _FORMATS:
        files = [name for name in names if pattern.search(name.lower())]
        if files:
            raise DatasetError(f"{root}: {what}, such as {shown(files[0])}, not folders of images; {remedy}")


def _refuse_outside_links(root: Path, found: Found) -> None:
    links = next((count for reason, count in found.listing.skipped.items() if "--follow-links" in reason), 0)
    if links:
        raise DatasetError(
            f"{root}: fewer than two classes, as {links:,} links lead out of it; --follow-links follows them"
        )


def _table_hint(root: Path, found: Found) -> str:
    table = _likely_table(found)
    return f"; if {shown(table)} is a table of labels: --labels {shown(str(root / table))}" if table else ""


def _likely_table(found: Found) -> str:
    """Returns the top-level file that is most likely a table of labels; empty if there is none."""
    tables = [name for name in found.top_names if name.lower().endswith(_TABLES)]
    return min(tables, key=_table_rank, default="")


def _table_rank(name: str) -> tuple[bool, bool, str]:
    # Competitions also have a sample submission, whose labels are placeholders.
    is_other = any(word in name.lower() for word in ("submi", "test"))
    return is_other, not any(word in name.lower() for word in ("label", "train")), name


def _folder_of_classes(found: Found, top: str) -> str:
    """Returns the first folder from `top` down with several sub-folders; empty if there is none."""
    children = _folders_below(found)
    path = next((path for path in found.folders[1:] if "/" not in path and shown(path) == top), "")
    while len(children[path]) == 1:
        path = f"{path}/{children[path][0]}"
    return path if path and children[path] else ""


def _children(found: Found, path: str) -> list[str]:
    return sorted(
        folder.rpartition("/")[2] for folder in found.folders if folder.rpartition("/")[0] == path and folder
    )


def nested_note(found: Found, *, is_below_splits: bool) -> list[str]:
    """Returns a note on folders inside classes, which may be meant as classes."""
    above = 1 if is_below_splits else 0
    counts = np.bincount(found.listing.labels, minlength=len(found.folders))
    inside: dict[str, dict[str, None]] = {}
    for path, count in zip(found.folders, counts.tolist(), strict=True):
        parts = path.split("/")
        if count and len(parts) >= above + 2:
            inside.setdefault(parts[above], {})[parts[above + 1]] = None
    if not inside:
        return []
    name, children = next((name, list(below)) for name, below in inside.items())
    more = f" (and so have {len(inside) - 1:,} more classes)" if len(inside) > 1 else ""
    folders = (
        f"a folder inside, {shown(children[0])}"
        if len(children) == 1
        else f"{len(children):,} folders inside, {sample(children)}"
    )
    if len(set(split_folders(children).values())) > 1:
        remedy = (
            "they look like splits, which are not kept inside of classes; move them above the classes and give "
            "--splits-from-folders"
        )
    else:
        remedy = (
            f"their images are of the class {shown(name)}; --class-depth 2 or --class-depth deepest makes classes of "
            "such folders"
        )
    return [f"{shown(name)} has {folders}{more}: {remedy}"]


def case_note(names: Sequence[str]) -> list[str]:
    """Returns a note on classes whose names differ only in case, and so collide on case-insensitive systems."""
    by_folded: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        by_folded[name.casefold()].append(name)
    return [
        f"the classes {' and '.join(alike)} differ in upper and lower case alone: on macOS and Windows their folders "
        "are one"
        for alike in by_folded.values()
        if len(alike) > 1
    ][:_MAX_NAMED]
