"""The page sections on the data: labels, odd images, duplicates, and the nearest training images."""

from collections.abc import Iterator, Sequence
from typing import Any

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.predict.findings.duplicates import MAX_SHOWN, EntryPair, ManifestEntry
from shardstream.predict.findings.label_check import LabelIssue
from shardstream.predict.findings.summary import NUM_NAMED
from shardstream.predict.output.result import Report
from shardstream.predict.page.advice import describe_part
from shardstream.predict.page.formatting import as_data
from shardstream.predict.page.texts.languages import Texts


def findings_values(report: Report, t: Texts) -> dict[str, Any]:
    """Returns the values of the findings templates."""
    findings = report.findings
    slices = [
        {
            "part": escape_control_chars(describe_part(one, t)),
            "slice": one,
            "worse": one.accuracy.value < one.expected,
        }
        for one in findings.slices
    ]
    labels, duplicates = findings.labels, findings.duplicates
    return {
        "slices": slices,
        "label_issues": [_issue(one, report) for one in labels.issues[:NUM_NAMED]],
        "num_label_issues": len(labels.issues),
        "labels_meaning": t[f"labels_meaning_{labels.source}"].format(count=f"{labels.num_checked:,}"),
        "confident_errors": [
            _of_row(row, report) for row in labels.errors[: 0 if labels.issues else NUM_NAMED].tolist()
        ],
        "odd_pictures": [
            _of_row(odd.row, report) | {"oddity": t[f"odd_{odd.oddity}"], "distance": odd.distance}
            for odd in findings.odd_pictures[:NUM_NAMED]
        ],
        "odd_none": t["odd_none" if findings.content_is_known else "odd_none_but_content"],
        "num_odd": len(findings.odd_pictures),
        "duplicates": duplicates,
        "leaks": [] if duplicates is None else list(_pairs(duplicates.leaks[:MAX_SHOWN], report)),
        "repeats": [] if duplicates is None else list(_pairs(duplicates.repeats[:MAX_SHOWN], report)),
        "contradictions": []
        if duplicates is None
        else list(_pairs(duplicates.contradictions[:MAX_SHOWN], report)),
        "neighbors": _neighbors(report),
    }


def _of_row(row: int, report: Report) -> dict[str, Any]:
    """Returns a prediction, with the image of its card if that is on the page."""
    outcomes = report.outcomes
    return {
        "row": row if row in report.rows else None,
        "path": escape_control_chars(report.findings.source_paths[row]),
        "actual": int(outcomes.labels[row]),
        "predicted": int(outcomes.predicted[row]),
        "probability": float(outcomes.probabilities[row]),
        "picture": None,
        "split": None,
    }


def _issue(issue: LabelIssue, report: Report) -> dict[str, Any]:
    row = report.findings.label_rows.get(issue.entry)
    is_card = row is not None and row in report.rows
    picture = None if is_card else report.findings.thumbnails.get(issue.entry)
    return {
        "row": row if is_card else None,
        "path": escape_control_chars(issue.entry.path),
        "actual": issue.label,
        "predicted": issue.suggested,
        "probability": issue.probability,
        "picture": None if picture is None else picture.data_uri,
        "split": escape_control_chars(issue.entry.split),
    }


def _pairs(pairs: Sequence[EntryPair], report: Report) -> Iterator[dict[str, Any]]:
    names = dict(zip(report.class_names, map(escape_control_chars, report.display_names), strict=True))

    def side(copy: ManifestEntry) -> dict[str, Any]:
        picture = report.findings.thumbnails.get(copy)
        return {
            "path": escape_control_chars(copy.path),
            "split": escape_control_chars(copy.split),
            "name": names.get(copy.class_name, escape_control_chars(copy.class_name)),
            "picture": None if picture is None else picture.data_uri,
        }

    for pair in pairs:
        yield {"sides": [side(pair.one), side(pair.other)], "same": pair.same}


def _neighbors(report: Report) -> str | None:
    """Returns the nearest training images as JSON: each image once, and the indices for each card."""
    neighbors = report.neighbors
    if neighbors is None or not any(neighbors.of_row.values()):
        return None
    names = [escape_control_chars(name) for name in report.display_names]
    numbers: dict[ManifestEntry, int] = {}
    images, of_row = [], {}
    for row, found in neighbors.of_row.items():
        for one in found:
            if one.entry not in numbers:
                numbers[one.entry] = len(numbers)
                picture = neighbors.thumbnails.get(one.entry)
                images.append(
                    {
                        "name": names[one.label],
                        "label": one.label,
                        "path": escape_control_chars(one.entry.path),
                        "picture": None if picture is None else picture.data_uri,
                    }
                )
        of_row[row] = [[numbers[one.entry], round(one.similarity, 2)] for one in found]
    return as_data({"images": images, "ofRow": of_row})
