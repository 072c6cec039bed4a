"""findings.csv: every label issue, odd image and duplicate; the page shows the first of each."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shardstream.predict.findings.duplicates import Duplicates, EntryPair
from shardstream.predict.findings.label_check import LabelIssue
from shardstream.predict.findings.summary import Findings
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.output.prediction_files import CSV_ENCODING, guarded

FINDINGS = "findings.csv"

# Each list has its own column with the rank, so that a spreadsheet can sort and count it.
_LISTS: tuple[str, ...] = ("label_issue", "odd_image", "leak", "contradiction", "repeat")
_COLUMNS: tuple[str, ...] = (
    *_LISTS, "source_path", "class_name", "split", "predicted", "probability", "wrong_label_probability",
    "oddity", "distance", "other_path", "other_class_name", "other_split", "same_image",
)  # fmt: skip

_Row = dict[str, object]


def finding_columns(
    findings: Findings, outcomes: PredictionTable, split: str
) -> dict[str, dict[int, int | float | str]]:
    """Returns the columns of predictions.csv and .parquet: the values of the rows that have one."""
    predicted = [
        (rank, findings.label_rows[issue.entry], issue)
        for rank, issue in enumerate(findings.labels.issues, 1)
        if issue.entry in findings.label_rows
    ]
    odd: dict[int, str] = {}
    for one in findings.odd_pictures:
        odd[one.row] = f"{odd[one.row]}, {one.oddity}" if one.row in odd else one.oddity
    return {
        "label_issue": {row: rank for rank, row, _ in predicted},
        "wrong_label_probability": {row: issue.wrong_label_probability for _, row, issue in predicted},
        "odd_image": dict(odd),
        "look_alike": dict(_look_alikes(findings.duplicates, outcomes, split)),
    }


def write_findings(
    path: Path,
    findings: Findings,
    outcomes: PredictionTable,
    source_paths: Mapping[int, str],
    *,
    split: str,
    class_names: Sequence[str],
) -> None:
    """Writes a row for each finding.

    Args:
        path: Path of the file.
        findings: The findings.
        outcomes: The predictions.
        source_paths: Source paths of the rows of odd images.
        split: The predicted split.
        class_names: Class names in label order.
    """

    def of_row(row: int) -> _Row:
        return {
            "source_path": source_paths[row],
            "class_name": class_names[outcomes.labels[row]],
            "split": split,
            "predicted": class_names[outcomes.predicted[row]],
            "probability": f"{outcomes.probabilities[row]:.6f}",
        }

    with path.open("w", encoding=CSV_ENCODING, newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        for rank, issue in enumerate(findings.labels.issues, 1):
            writer.writerow(_safe({"label_issue": rank} | _of_issue(issue, class_names)))
        for rank, odd in enumerate(findings.odd_pictures, 1):
            values = {"odd_image": rank, "oddity": odd.oddity, "distance": f"{odd.distance:.2f}"}
            writer.writerow(_safe(values | of_row(odd.row)))
        for row in _pair_rows(findings.duplicates):
            writer.writerow(_safe(row))


def _of_issue(issue: LabelIssue, class_names: Sequence[str]) -> _Row:
    return {
        "source_path": issue.entry.path,
        "class_name": issue.entry.class_name,
        "split": issue.entry.split,
        "predicted": class_names[issue.suggested],
        "probability": f"{issue.probability:.6f}",
        "wrong_label_probability": f"{issue.wrong_label_probability:.4f}",
    }


def _pair_rows(duplicates: Duplicates | None) -> Iterator[_Row]:
    if duplicates is None:
        return
    lists = {
        "leak": duplicates.leaks,
        "contradiction": duplicates.contradictions,
        "repeat": duplicates.repeats,
    }
    for name, pairs in lists.items():
        for rank, pair in enumerate(pairs, 1):
            yield {name: rank} | _of_pair(pair)


def _of_pair(pair: EntryPair) -> _Row:
    return {
        "source_path": pair.one.path,
        "class_name": pair.one.class_name,
        "split": pair.one.split,
        "other_path": pair.other.path,
        "other_class_name": pair.other.class_name,
        "other_split": pair.other.split,
        "same_image": "yes" if pair.same else "no",
    }


def _look_alikes(
    duplicates: Duplicates | None, outcomes: PredictionTable, split: str
) -> Iterator[tuple[int, str]]:
    """Yields the rows of duplicate images, with the path of the other copy."""
    if duplicates is None:
        return
    rows = {int(position): row for row, position in enumerate(outcomes.positions)}
    for pairs in (duplicates.repeats, duplicates.leaks, duplicates.contradictions):
        for pair in pairs:
            for one, other in ((pair.one, pair.other), (pair.other, pair.one)):
                if one.split == split and one.position in rows:
                    yield rows[one.position], other.path


def _safe(row: _Row) -> _Row:
    return {name: guarded(value) if isinstance(value, str) else value for name, value in row.items()}
