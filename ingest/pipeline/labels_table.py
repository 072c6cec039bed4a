"""--labels FILE.csv: the classes, and where it says so the splits, from a table."""

import csv
import dataclasses
import io
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import ConfigError, DatasetError, LimitError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.layout_hints import sample
from shardstream.ingest.pipeline.layouts import class_name, order_classes
from shardstream.ingest.pipeline.listing import Found, Listing, shown
from shardstream.ingest.pipeline.split_folders import split_of_word

# By falling likelihood.
_PATH_COLUMNS = (
    "path file filename file_name filepath file_path image image_name image_path image_id img id name"
)
_LABEL_COLUMNS = "label class class_name category target species breed diagnosis dx labels y"
_DELIMITERS = ",;\t|"
# Excel writes these where it does not write UTF-8, of Korea and of the West; which one, the paths in it tell.
_LEGACY_ENCODINGS = ("cp949", "cp1252")
_NONE = -1


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table."""

    line: int
    path: str
    label: str
    split: str


class _Files:
    """The files of the source, found by what people write in tables."""

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
                    index[part] = (
                        row if part not in index else _NONE
                    )  # Two of that name: neither is meant for sure.

    def find(self, path: str) -> int | None:
        """Returns the row of the file that `path` means; None where there is none, -1 where there are several."""
        path = unicodedata.normalize("NFC", path).replace("\\", "/")
        if path.startswith("/"):
            path = os.path.relpath(path, self._root.resolve())
        path = posixpath.normpath(path)
        for candidate in (path, posixpath.normpath(posixpath.join(self._above, path))):
            if candidate in self._exact:
                return self._exact[candidate]
        parts = path.split("/")
        for index in (self._by_name, self._by_stem):
            for start in range(len(parts)):  # A table may be older than the folder around its images.
                if (row := index.get("/".join(parts[start:]))) is not None:
                    return row
        return None

    @staticmethod
    def _table_folder(root: Path, table: Path) -> str:
        """Returns the folder of the table inside of the source."""
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
    """Returns the files that the table names, with its classes and splits.

    Args:
        root: The source, for errors.
        found: Its files.
        layout: The columns of the table.
        class_names: The classes in label order; sorted by name where none are given.
        table: The file.
        max_missing: The largest fraction of the files in the table that may be missing.

    Raises:
        ConfigError: There is no such file or column, or the classes are not `class_names`.
        DatasetError: It cannot be read, or says two things of one file.
        LimitError: More files are missing than `max_missing` allows.
    """
    files = _Files(root, found, table)
    rows = _read_table(table, layout, files)
    meant: dict[int, _Row] = {}
    missing: list[str] = []
    for row in rows:
        number = files.find(row.path)
        if number == _NONE:
            raise DatasetError(
                f"{table}: line {row.line}: several files in {root} could be {row.path!r}; write its folder as well"
            )
        if number is None:
            missing.append(row.path)
        else:
            _check_one_label(table, meant.get(number), row)
            meant[number] = row
    notes = _check_missing(root, table, missing, len(missing) + len(meant), max_missing)
    return _choose(root, found, layout, class_names, table, meant, notes)


def _choose(
    root: Path,
    found: Found,
    layout: Layout,
    class_names: Sequence[str],
    table: Path,
    meant: dict[int, _Row],
    notes: list[str],
) -> Listing:
    numbers = np.array(sorted(meant), np.intp)
    names = [class_name(table, meant[number].label) for number in numbers.tolist()]
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


def _check_one_label(table: Path, before: _Row | None, row: _Row) -> None:
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


def _split(table: Path, row: _Row) -> int:
    split = split_of_word(row.split)
    if not split:
        raise DatasetError(
            f"{table}: line {row.line}: {row.split!r} is no split; expected {', '.join(SPLIT_NAMES)} or the like"
        )
    return SPLIT_NAMES.index(split)


def _read_table(table: Path, layout: Layout, files: _Files) -> list[_Row]:
    try:
        content = table.read_bytes()
    except OSError as error:
        raise ConfigError(f"--labels {table}: cannot be read: {error.strerror}") from None
    best: list[_Row] = []
    num_found = -1
    for text in _decodings(table, content):
        rows = list(_rows(table, text, layout))
        count = sum(files.find(row.path) is not None for row in rows[:10_000])
        if count > num_found:
            best, num_found = rows, count
    if not best:
        raise DatasetError(f"{table}: no line with a file in it")
    return best


def _decodings(table: Path, content: bytes) -> Iterator[str]:
    """Yields what the table may say: one text where its encoding is certain."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: Sequence[str] = ("utf-16",)
    else:
        encodings = ("utf-8-sig",)
        try:
            content.decode("utf-8-sig")
        except UnicodeDecodeError:
            encodings = _LEGACY_ENCODINGS
    texts = []
    for encoding in encodings:
        try:
            texts.append(content.decode(encoding))
        except UnicodeDecodeError:
            continue
    if not texts or any("\0" in text for text in texts):
        raise DatasetError(f"{table}: not a text file in UTF-8, UTF-16 or CP949; save it as CSV in UTF-8")
    yield from texts


def _rows(table: Path, text: str, layout: Layout) -> Iterator[_Row]:
    first, _, _ = text.lstrip("\r\n").partition("\n")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _columns(table, header, layout)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(table, reader.line_num, cells, columns)
    except csv.Error as error:
        raise DatasetError(f"{table}: line {reader.line_num}: {error}") from None


def _row(table: Path, line: int, cells: Sequence[str], columns: Sequence[int]) -> _Row:
    if len(cells) <= max(columns):
        raise DatasetError(f"{table}: line {line}: {len(cells)} cells, fewer than its header has")
    path, label, split = (cells[column].strip() if column >= 0 else "" for column in columns)
    if not path or not label:
        raise DatasetError(
            f"{table}: line {line}: no {'label' if path else 'file'}; fill it in or take the line out"
        )
    return _Row(line, path, label, split)


def _columns(table: Path, header: Sequence[str], layout: Layout) -> tuple[int, int, int]:
    """Returns the numbers of the columns with path, label and split, -1 where there is none for the split."""
    numbers = []
    for option, wanted in (
        ("--path-column", layout.path_column),
        ("--label-column", layout.label_column),
        ("--split-column", layout.split_column),
    ):
        if wanted and header.count(wanted) != 1:
            what = "no column" if wanted not in header else "two columns"
            raise ConfigError(f"{table}: {what} {wanted!r} for {option}; it has {', '.join(header)[:500]}")
        numbers.append(header.index(wanted) if wanted else _NONE)
    return numbers[0], numbers[1], numbers[2]


def guess_columns(table: Path, layout: Layout) -> Layout:
    """Returns `layout` with the columns of the table that it does not name, by the names that they usually have.

    Raises:
        ConfigError: There is no such file, or no column of such a name.
    """
    try:
        content = table.read_bytes()
    except OSError as error:
        raise ConfigError(f"--labels {table}: cannot be read: {error.strerror}") from None
    text = next(_decodings(table, content))
    first, _, _ = text.lstrip("\r\n").partition("\n")
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    path = layout.path_column or _guess(table, header, "--path-column", _PATH_COLUMNS, layout.label_column)
    label = layout.label_column or _guess(table, header, "--label-column", _LABEL_COLUMNS, path)
    return dataclasses.replace(layout, path_column=path, label_column=label)


def _guess(table: Path, header: Sequence[str], option: str, usual: str, taken: str) -> str:
    lower = {name.lower().replace(" ", "_"): name for name in header if name != taken}
    found = [lower[name] for name in usual.split() if name in lower]
    if not found:
        raise ConfigError(f"{table}: which column? Give {option}; it has {', '.join(header)[:500]}")
    return found[0]
