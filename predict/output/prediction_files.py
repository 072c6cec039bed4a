"""predictions.parquet for programs and predictions.csv for spreadsheets: one row per image."""

import contextlib
import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.predict.inference.prediction import RecordBatch, cross_entropy
from shardstream.predict.inference.prediction_table import top_k

if TYPE_CHECKING:
    import _csv

    import pyarrow as pa
    import pyarrow.parquet as pq

COLUMNS = (
    "record", "shard", "position", "source_path", "source_sha256",
    "actual", "predicted", "probability", "actual_probability", "right", "loss",
)  # fmt: skip

# Spreadsheets interpret cells that start with these as formulas, and formulas can call programs.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# With a byte order mark: without it spreadsheets assume the system's code page.
CSV_ENCODING = "utf-8-sig"

# Spreadsheets do not show more columns of probabilities than this; the Parquet file has them all.
_CSV_CLASSES = 100

# Rows of a group are buffered in memory: 16 MB of probabilities.
_GROUP_PROBABILITIES = 1 << 22
_GROUP_ROWS = 1 << 16


@contextlib.contextmanager
def predictions_files(
    parquet: Path, table: Path, class_names: Sequence[str], *, others: Sequence[str] = ()
) -> Iterator["PredictionsFiles"]:
    """Gives a writer of both files, which are complete on exit.

    Args:
        parquet: Path of the Parquet file.
        table: Path of the CSV file.
        class_names: Class names in label order.
        others: Names of other models whose predictions are included.
    """
    import pyarrow.parquet as pq

    schema = _schema(others)
    with (
        # Opened here: PyArrow does not accept paths that are not UTF-8.
        parquet.open("wb") as sink,
        pq.ParquetWriter(sink, schema, compression="zstd") as writer,
        table.open("w", encoding=CSV_ENCODING, newline="") as file,
    ):
        # Lines end with CR LF, as in the standard; with LF alone, a CR in a name would not be quoted.
        files = PredictionsFiles(writer, csv.writer(file), schema, class_names, others)
        yield files
        files.flush()


class PredictionsFiles:
    """Writes rows as predictions are made, so that memory use does not grow with their number."""

    def __init__(
        self,
        parquet: "pq.ParquetWriter",
        table: "_csv.Writer",
        schema: "pa.Schema",
        class_names: Sequence[str],
        others: Sequence[str],
    ) -> None:
        """Writes the header of the table."""
        self._others = others
        self._parquet, self._table, self._schema, self._class_names = parquet, table, schema, class_names
        self._waiting: list[pa.RecordBatch] = []
        self._num_waiting = 0
        self._spelt = class_names if len(class_names) <= _CSV_CLASSES else ()
        self._named = schema.names[:-1]
        spelt = [f"probability_{name}" for name in self._spelt]
        table.writerow(map(guarded, [*self._named, *spelt]))

    def write(self, batch: RecordBatch, probabilities: np.ndarray, others: Sequence[np.ndarray] = ()) -> None:
        """Adds a row for each record, with float32 [len(batch.records), num_classes] probabilities of each model."""
        columns = self._columns(batch, probabilities)
        for name, of_other in zip(self._others, others, strict=True):
            columns |= self._other_columns(name, batch, of_other)
        self._write_table(columns, probabilities)
        self._write_parquet(columns, probabilities)

    def flush(self) -> None:
        """Writes the buffered rows as a row group."""
        import pyarrow as pa

        if self._waiting:
            self._parquet.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting, self._num_waiting = [], 0

    def _columns(self, batch: RecordBatch, probabilities: np.ndarray) -> dict[str, list]:
        records = batch.records
        labels = np.array([record.label for record in records])
        predicted = top_k(probabilities)[:, 0]
        rows = np.arange(len(records))
        actual = probabilities[rows, labels]
        return {
            "record": [record.id for record in records],
            "shard": [record.shard for record in records],
            "position": [record.position for record in records],
            "source_path": [record.source_path for record in records],
            "source_sha256": [record.source_sha256 for record in records],
            "actual": [self._class_names[label] for label in labels],
            "predicted": [self._class_names[label] for label in predicted],
            "probability": probabilities[rows, predicted].tolist(),
            "actual_probability": actual.tolist(),
            "right": (predicted == labels).tolist(),
            "loss": cross_entropy(actual).tolist(),
        }

    def _other_columns(self, name: str, batch: RecordBatch, probabilities: np.ndarray) -> dict[str, list]:
        labels = np.array([record.label for record in batch.records])
        predicted, rows = probabilities.argmax(axis=1), np.arange(len(labels))
        values = (
            [self._class_names[label] for label in predicted],
            probabilities[rows, predicted].tolist(),
            probabilities[rows, labels].tolist(),
            (predicted == labels).tolist(),
        )
        return dict(zip(other_columns(name), values, strict=True))

    def _write_table(self, columns: dict[str, list], probabilities: np.ndarray) -> None:
        written = [[_cell(value) for value in columns[name]] for name in self._named]
        spelt = [[f"{share:.6f}" for share in row] for row in probabilities[:, : len(self._spelt)].tolist()]
        self._table.writerows([*row, *shares] for *row, shares in zip(*written, spelt, strict=True))

    def _write_parquet(self, columns: dict[str, list], probabilities: np.ndarray) -> None:
        import pyarrow as pa

        # Fixed-size lists are not supported by all programs.
        offsets = np.arange(len(probabilities) + 1, dtype=np.int32) * probabilities.shape[1]
        shares = pa.ListArray.from_arrays(pa.array(offsets), pa.array(probabilities.ravel()))
        arrays = [
            pa.array(columns[name], kind)
            for name, kind in zip(self._named, self._schema.types[:-1], strict=True)
        ]
        self._waiting.append(pa.RecordBatch.from_arrays([*arrays, shares], schema=self._schema))
        self._num_waiting += len(probabilities)
        if (
            self._num_waiting >= _GROUP_ROWS
            or self._num_waiting * probabilities.shape[1] >= _GROUP_PROBABILITIES
        ):
            self.flush()


def add_columns(parquet: Path, table: Path, columns: Mapping[str, Mapping[int, "int | float | str"]]) -> None:
    """Adds sparse columns to both files, for results that are known only after all predictions.

    Both are rewritten one row group at a time.

    Args:
        parquet: Path of the Parquet file.
        table: Path of the CSV file.
        columns: The values by row number; those of a column have the same type.
    """
    _add_to_parquet(parquet, columns)
    beside = table.with_name(f".{table.name}")
    with (
        table.open(encoding=CSV_ENCODING, newline="") as old,
        beside.open("w", encoding=CSV_ENCODING, newline="") as new,
    ):
        reader, writer = csv.reader(old), csv.writer(new)
        writer.writerow([*next(reader), *columns])
        for row, cells in enumerate(reader):
            writer.writerow([*cells, *(_cell(values.get(row, "")) for values in columns.values())])
    beside.replace(table)


def read_source_paths(parquet: Path, rows: Collection[int]) -> dict[int, str]:
    """Returns the source paths of some rows of predictions.parquet."""
    import pyarrow.parquet as pq

    found: dict[int, str] = {}
    first = 0
    with parquet.open("rb") as source, pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups if rows else 0):
            paths = file.read_row_group(group, columns=["source_path"])["source_path"]
            found |= {row: paths[row - first].as_py() for row in rows if first <= row < first + len(paths)}
            first += len(paths)
    return found


def _add_to_parquet(parquet: Path, columns: Mapping[str, Mapping[int, "int | float | str"]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {int: pa.int32(), float: pa.float32(), str: pa.string()}
    types = {name: kinds[type(next(iter(values.values()), ""))] for name, values in columns.items()}
    beside = parquet.with_name(f".{parquet.name}")
    with parquet.open("rb") as source, pq.ParquetFile(source) as old:
        schema = old.schema_arrow
        for name, kind in types.items():
            schema = schema.append(pa.field(name, kind))
        with beside.open("wb") as sink, pq.ParquetWriter(sink, schema, compression="zstd") as new:
            first = 0
            for group in range(old.num_row_groups):
                rows = old.read_row_group(group)
                numbers = range(first, first + rows.num_rows)
                for name, values in columns.items():
                    rows = rows.append_column(
                        name, pa.array([values.get(row) for row in numbers], types[name])
                    )
                new.write_table(rows)
                first += rows.num_rows
    beside.replace(parquet)


def other_columns(name: str) -> list[str]:
    """Returns the names of the columns of another model: "NAME: predicted" and so on."""
    return [f"{name}: {column}" for column in ("predicted", "probability", "actual_probability", "right")]


def guarded(text: str) -> str:
    """Returns `text`, prefixed with an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _cell(value: object) -> object:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6f}"
        case str():
            return guarded(value)
    return value


def _schema(others: Sequence[str]) -> "pa.Schema":
    import pyarrow as pa

    types = {
        "position": pa.int32(),
        "probability": pa.float32(),
        "actual_probability": pa.float32(),
        "right": pa.bool_(),
        "loss": pa.float32(),
    }
    names = [*COLUMNS, *(column for name in others for column in other_columns(name))]
    named = [(name, types.get(name.rpartition(": ")[2], pa.string())) for name in names]
    return pa.schema([*named, ("probabilities", pa.list_(pa.float32()))])
