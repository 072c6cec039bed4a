"""--labels FILE.csv: classes, and optionally splits, from a table."""

import os
import posixpath
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import DatasetError, LimitError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.label_kinds import refuse_other_tasks
from shardstream.ingest.pipeline.layout_hints import sample
from shardstream.ingest.pipeline.layouts import class_name, order_classes
from shardstream.ingest.pipeline.listing import Found, Listing, shown
from shardstream.ingest.pipeline.split_folders import split_of_word
from shardstream.ingest.pipeline.table_file import Row, read_table

_NONE = -1


class _Files:
    """Looks up source files by the paths or names that tables contain."""

    def __init__(self, root: Path, found: Found, table: Path) -> None:
        self._root = root
        self._above = self._table_folder(root, table)
        self._exact: dict[str, int] = {}
        self._by_name: dict[str, int] = {}
        self._by_stem: dict[str, int] = {}
        for row in range(len(found.listing)):
            path = unicodedata.normalize("NFC", shown(found.listing.path(row)))
            self._exact[path] = row
            for index, key in ((self._by_name, path), (self._by_stem, posixpath.splitext(path)[0])):
                for part in {key, posixpath.basename(key)}:
                    index[part] = row if part not in index else _NONE  # Ambiguous: two files have that name.

    def find(self, path: str) -> int | None:
        """Returns the row of the file that `path` refers to; None if there is none, -1 if there are several."""
        path = unicodedata.normalize("NFC", path).replace("\\", "/")
        if path.startswith("/"):
            path = os.path.relpath(path, self._root.resolve())
        path = posixpath.normpath(path)
        for candidate in (path, posixpath.normpath(posixpath.join(self._above, path))):
            if candidate in self._exact:
                return self._exact[candidate]
        parts = path.split("/")
        for index in (self._by_name, self._by_stem):
            for start in range(len(parts)):  # The images may have been moved to another folder since.
                if (row := index.get("/".join(parts[start:]))) is not None:
                    return row
        return None

    @staticmethod
    def _table_folder(root: Path, table: Path) -> str:
        """Returns the folder of the table relative to the source."""
        return os.path.relpath(table.resolve().parent, root.resolve())


def by_table(
    root: Path,
    found: Found,
    layout: Layout,
    class_names: Sequence[str],
    *,
    table: Path,
    max_missing: float,
) -> Listing:
    """Returns the files listed in the table, with its classes and splits.

    Args:
        root: The source, for errors.
        found: Its files.
        layout: The columns of the table.
        class_names: The classes in label order; sorted by name if empty.
        table: Path of the table.
        max_missing: Maximum fraction of the files in the table that may be missing.

    Raises:
        ConfigError: There is no such file or column, or the classes are not `class_names`.
        DatasetError: The table cannot be read, or has contradictory lines for a file.
        LimitError: More files are missing than `max_missing` allows.
    """
    files = _Files(root, found, table)
    rows, notes = read_table(table, layout, lambda path: files.find(path) is not None)
    meant: dict[int, Row] = {}
    missing: list[Row] = []
    for row in rows:
        number = files.find(row.path)
        if number == _NONE:
            raise DatasetError(
                f"{table}: line {row.line}: several files in {root} could be {row.path!r}; write its folder as well, "
                "or give the folder that it is in as IMAGES"
            )
        if number is None:
            missing.append(row)
        else:
            _check_one_label(table, meant.get(number), row)
            meant[number] = row
    paths = [row.path for row in missing]
    notes += _check_missing(root, table, paths, len(missing) + len(meant), max_missing)
    _check_no_class_missing(root, table, missing, meant.values(), class_names)
    return _choose(root, found, layout, class_names, table, meant, notes)


def _choose(
    root: Path,
    found: Found,
    layout: Layout,
    class_names: Sequence[str],
    table: Path,
    meant: dict[int, Row],
    notes: list[str],
) -> Listing:
    numbers = np.array(sorted(meant), np.intp)
    names = [class_name(table, meant[number].label) for number in numbers.tolist()]
    if not class_names:
        refuse_other_tasks(table, set(names), len(names))
    classes = order_classes(table, sorted(set(names)), class_names)
    if len(classes) < 2:
        raise DatasetError(f"{table}: only one class ({sample(classes)}); a classifier needs at least two")
    listing = found.listing.select(numbers)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[name] for name in names], np.uint32)
    splits = np.empty(0, np.uint8)
    if layout.split_column:
        splits = np.array([_split(table, meant[number]) for number in numbers.tolist()], np.uint8)
    listing.set_classes(classes, labels, splits)
    listing.skipped[f"in no line of {table.name}"] += len(found.listing) - len(listing)
    listing.notes += notes
    return listing


def _check_one_label(table: Path, before: Row | None, row: Row) -> None:
    if before is None:
        return
    for what, first, second in (("labels", before.label, row.label), ("splits", before.split, row.split)):
        if first != second:
            raise DatasetError(
                f"{table}: {row.path} has two {what}, {first!r} (line {before.line}) and {second!r} (line {row.line}); "
                f"one of {'each is' if what == 'splits' else 'them is'} expected"
                + (
                    ""
                    if what == "splits"
                    else ", multi-label data cannot be trained on: keep one line an image"
                )
            )


def _check_missing(
    root: Path, table: Path, missing: Sequence[str], num_files: int, max_missing: float
) -> list[str]:
    if not missing:
        return []
    what = f"{len(missing):,} of {num_files:,} files in {table} are not in {root}: {sample(missing)}"
    if len(missing) == num_files:
        raise DatasetError(f"{what}; give another --path-column, or the folder that its paths start from")
    if len(missing) > max_missing * num_files:
        raise LimitError(
            f"{what}; more than --max-rejected {max_missing:g} allows: bring them back, take them out of the table, or "
            "raise the limit"
        )
    return [what]


def _check_no_class_missing(
    root: Path, table: Path, missing: Sequence[Row], found: Collection[Row], class_names: Sequence[str]
) -> None:
    """Refuses a class without any existing file, like an empty class folder, unless `class_names` are given."""
    absent = {row.label for row in missing} - {row.label for row in found}
    absent = sorted({class_name(table, label) for label in absent})
    if class_names:
        named = {unicodedata.normalize("NFC", name) for name in class_names}
        absent = [name for name in absent if name in named]
    if absent:
        raise DatasetError(
            f"{table}: {'class' if len(absent) == 1 else 'classes'} {sample(absent)}: none of the files is in {root}; "
            "bring them back, take the lines out of the table, or name the other classes with --class-names"
        )


def _split(table: Path, row: Row) -> int:
    split = split_of_word(row.split)
    if not split:
        raise DatasetError(
            f"{table}: line {row.line}: {row.split!r} is no split; expected {', '.join(SPLIT_NAMES)} or the like"
        )
    return SPLIT_NAMES.index(split)
