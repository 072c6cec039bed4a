"""Reads a table of labels, in the encodings and with the delimiters that common programs write."""

import csv
import dataclasses
import io
import posixpath
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shardstream.ingest.common.errors import ConfigError, DatasetError, UserError, is_machine_error
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.dataset.layout import Layout

# Most likely first.
_PATH_COLUMNS = (
    "path file filename file_name filepath file_path image image_name image_path image_id img id name"
)
_LABEL_COLUMNS = "label class class_name category target species breed diagnosis dx labels y"
_DELIMITERS = ",;\t|"
# Excel's encodings other than UTF-8, Korean and Western; matching the paths in the table decides which it is.
_LEGACY_ENCODINGS = ("cp949", "cp1252")
_MAX_TABLE_BYTES = 2 << 30  # Tens of millions of lines.
_MAX_HEADER_CHARS = 1 << 20
_ROWS_TO_CHOOSE_BY = 10_000
_NONE = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    line: int
    path: str
    label: str
    split: str


def read_table(table: Path, layout: Layout, is_file: Callable[[str], bool]) -> tuple[list[Row], list[str]]:
    """Returns the lines of a table, and notes for the user, in sentences.

    Args:
        table: Path of the table.
        layout: Its columns.
        is_file: Returns whether a path in the table refers to a file of the source.

    Raises:
        ConfigError: There is no such file or column.
        DatasetError: The file is not a table, has no header, or has incomplete lines.
    """
    best: list[Row] = []
    num_found, best_encoding = -1, ""
    failures: list[UserError] = []
    for encoding, text in _decodings(table, _read(table)):
        try:
            rows = _rows(table, text, layout, is_file)
        except UserError as error:
            failures.append(error)
            continue
        count = sum(is_file(row.path) for row in rows[:_ROWS_TO_CHOOSE_BY])
        if count > num_found:
            best, num_found, best_encoding = rows, count, encoding
    if not best:
        raise failures[0] if failures else DatasetError(f"{table}: no line with a file in it")
    if best_encoding not in _LEGACY_ENCODINGS:
        return best, []
    return best, [
        f"{table}: not in UTF-8, read as {best_encoding.upper()}; save it in UTF-8 if names are wrong"
    ]


def _rows(table: Path, text: str, layout: Layout, is_file: Callable[[str], bool]) -> list[Row]:
    lines = _lines(table, text)
    _, header = next(lines, (0, []))
    columns = _columns(table, header, layout)
    _check_header(table, header[columns[0]], is_file)
    return [_row(table, line, cells, columns) for line, cells in lines]


def guess_columns(table: Path, layout: Layout) -> Layout:
    """Returns `layout` with its missing columns filled in from the usual column names.

    Raises:
        ConfigError: There is no such file, or no column with a usual name.
        DatasetError: The file is not a table.
    """
    _, text = next(_decodings(table, _read(table)))
    _, header = next(_lines(table, text), (0, []))
    path = layout.path_column or _guess(table, header, "--path-column", _PATH_COLUMNS, layout.label_column)
    label = layout.label_column or _guess(table, header, "--label-column", _LABEL_COLUMNS, path)
    return dataclasses.replace(layout, path_column=path, label_column=label)


def _guess(table: Path, header: Sequence[str], option: str, usual: str, taken: str) -> str:
    lower = {name.lower().replace(" ", "_"): name for name in header if name != taken}
    found = [lower[name] for name in usual.split() if name in lower]
    if not found:
        raise ConfigError(f"{table}: which column? Give {option}; {_shown_header(header)}")
    return found[0]


def _shown_header(header: Sequence[str]) -> str:
    if not header:
        return "it has no line with the names of its columns"
    return f"its first line has {', '.join(header)[:500]}"


def _read(table: Path) -> bytes:
    try:
        return read_regular(table, max_bytes=_MAX_TABLE_BYTES)
    except OSError as error:
        if is_machine_error(error):
            raise
        raise ConfigError(f"--labels {table}: cannot be read: {error.strerror}") from None


def _decodings(table: Path, content: bytes) -> Iterator[tuple[str, str]]:
    """Yields encodings and the decoded text in each; only one if the encoding is certain."""
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
            texts.append((encoding, content.decode(encoding)))
        except UnicodeDecodeError:
            continue
    if not texts or any("\0" in text for _, text in texts):
        raise DatasetError(f"{table}: not a text file in UTF-8, UTF-16 or CP949; save it as CSV in UTF-8")
    yield from texts


def _lines(table: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the cells of each line that is not empty; the first is the header."""
    head = io.StringIO(text[:_MAX_HEADER_CHARS], newline="")
    first = next((line for line in head if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count))
    is_header = True
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            # A line before the header may tell Excel the delimiter: "sep=;".
            if any(stripped) and not (
                is_header and stripped[0] in {"sep=", *(f"sep={it}" for it in _DELIMITERS)}
            ):
                is_header = False
                yield reader.line_num, stripped
    except csv.Error as error:
        raise DatasetError(f"{table}: line {reader.line_num}: {error}") from None


def _row(table: Path, line: int, cells: Sequence[str], columns: Sequence[int]) -> Row:
    if len(cells) <= max(columns):
        raise DatasetError(f"{table}: line {line}: {len(cells)} cells, fewer than its header has")
    path, label, split = (cells[column] if column >= 0 else "" for column in columns)
    if not path or not label:
        raise DatasetError(
            f"{table}: line {line}: no {'label' if path else 'file'}; fill it in or take the line out"
        )
    return Row(line, path, label, split)


def _columns(table: Path, header: Sequence[str], layout: Layout) -> tuple[int, int, int]:
    """Returns the indices of the columns with path, label and split, -1 if there is none for the split."""
    numbers = []
    for option, wanted in (
        ("--path-column", layout.path_column),
        ("--label-column", layout.label_column),
        ("--split-column", layout.split_column),
    ):
        if wanted and header.count(wanted) != 1:
            what = "no column" if wanted not in header else "two columns"
            raise ConfigError(f"{table}: {what} {wanted!r} for {option}; {_shown_header(header)}")
        numbers.append(header.index(wanted) if wanted else _NONE)
    return numbers[0], numbers[1], numbers[2]


def _check_header(table: Path, path: str, is_file: Callable[[str], bool]) -> None:
    if posixpath.splitext(path)[1] and is_file(path):
        raise DatasetError(
            f"{table}: its first line names the file {path}, expected the names of the columns; add such a line"
        )
