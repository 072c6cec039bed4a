"""Recognizes labels of other tasks than single-label classification: multi-label and regression."""

from collections.abc import Collection
from pathlib import Path

from shardstream.ingest.common.errors import DatasetError

_SEPARATORS = "|;, "
_MIN_NUMBERS = 10


def refuse_other_tasks(table: Path, labels: Collection[str], num_files: int) -> None:
    """Raises DatasetError if the labels of a table are not classes.

    Args:
        table: Path of the table, for errors.
        labels: All distinct labels.
        num_files: The number of labeled files.
    """
    for separator in _SEPARATORS:
        for label in sorted(labels):
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(part in labels for part in parts):
                raise DatasetError(
                    f"{table}: the label {label[:100]!r} is of several that are labels by themselves: multi-label data "
                    "cannot be trained on, one class an image is expected (one class after all? Name all classes with "
                    "--class-names)"
                )
    if len(labels) >= _MIN_NUMBERS and 2 * len(labels) > num_files and all(map(_is_number, labels)):
        fraction = min((label for label in labels if not float(label).is_integer()), default="")
        if fraction:
            raise DatasetError(
                f"{table}: {len(labels):,} different numbers for {num_files:,} files, such as {fraction}: numbers to "
                "be predicted (regression) cannot be trained on, classes are expected; give another --label-column"
            )


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
