"""Advice: the few sentences to read first."""

import dataclasses
from collections.abc import Iterator

from shardstream.predict.metrics.comparison import ComparedSlice
from shardstream.predict.metrics.slices import Slice
from shardstream.predict.output.result import Report
from shardstream.predict.page.formatting import percent
from shardstream.predict.page.texts.languages import Texts

_MAX_SENTENCES = 5

# A pair with a smaller fraction of the errors is not worth mentioning.
_PAIR_SHARE = 0.25
_PAIR_COUNT = 3
# Smaller calibration errors need no correction.
_CALIBRATION_GAP = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """A sentence, why it matters, and the section that shows it."""

    sentence: str
    reason: str
    section: str


def advise(report: Report, t: Texts) -> list[Advice]:
    """Returns at most five pieces of advice, data issues first: they are the quickest to fix."""
    found = [*_about_data(report, t), *_about_errors(report, t), *_about_probabilities(report, t)]
    return found[:_MAX_SENTENCES]


def describe_part(part: Slice | ComparedSlice, t: Texts) -> str:
    """Returns the description of a slice, in the language of `t`."""
    match part.attribute:
        case "folder":
            return t["part_folder"].format(folder=part.folder)
        case "size":
            low, high = f"{part.low / 1e6:.2f}", f"{part.high / 1e6:.2f}"
        case "aspect":
            low, high = f"{part.low:.2f}", f"{part.high:.2f}"
        case _:
            digits = 0 if part.low >= 10 else 1
            low, high = f"{part.low:.{digits}f}", f"{part.high:.{digits}f}"
    values = low if low == high else t["part_range"].format(low=low, high=high)
    return t[f"part_{part.attribute}"].format(values=values)


def _about_data(report: Report, t: Texts) -> Iterator[Advice]:
    findings, provenance = report.findings, report.provenance
    if provenance.split == "train" and provenance.model_info.dataset_fingerprint == provenance.fingerprint:
        yield Advice(t["advice_trained"], t["advice_trained_why"], "provenance")
    if num_issues := len(findings.labels.issues):
        reason = f"advice_labels_why_{findings.labels.source}"
        yield _counted("labels", num_issues, "labels", t, reason=reason)
    counts = []
    if findings.duplicates is not None:
        counts += [
            ("contradictions", findings.duplicates.num_contradictions, "duplicates"),
            ("leaks", findings.duplicates.num_copies, "duplicates"),
        ]
    for name, count, section in counts:
        if count:
            yield _counted(name, count, section, t)


def _about_errors(report: Report, t: Texts) -> Iterator[Advice]:
    worse = [
        part for part in report.findings.slices if part.stands_out and part.accuracy.value < part.expected
    ]
    for part in sorted(worse, key=lambda part: part.accuracy.value - part.expected)[:2]:
        yield Advice(
            t["advice_slice"].format(part=describe_part(part, t)),
            t["advice_slice_why"].format(
                accuracy=percent(part.accuracy.value), expected=percent(part.expected)
            ),
            "slices",
        )
    pairs = report.summary.confusion.confused_pairs()[:1]
    for pair in pairs:
        share = pair.share_of_errors
        if share >= _PAIR_SHARE and pair.count >= _PAIR_COUNT:
            names = report.display_names
            yield Advice(
                t["advice_pair"].format(actual=names[pair.actual], predicted=names[pair.predicted]),
                t["advice_pair_why"].format(share=percent(share)),
                "matrix",
            )


def _about_probabilities(report: Report, t: Texts) -> Iterator[Advice]:
    confidence, accuracy = report.calibration.confidence, report.summary.accuracy
    # Beyond the noise of the accuracy, and of the distance of both.
    if (
        abs(confidence - accuracy.value) >= _CALIBRATION_GAP
        and not accuracy.low <= confidence <= accuracy.high
        and report.calibration.ece.low > 0
    ):
        yield Advice(
            t["advice_over" if confidence > accuracy.value else "advice_under"],
            t["advice_calibration_why"].format(
                confidence=percent(confidence), accuracy=percent(accuracy.value)
            ),
            "calibration",
        )
    if report.findings.odd_pictures:
        yield _counted("odd", len({odd.row for odd in report.findings.odd_pictures}), "odd", t)


def _counted(name: str, count: int, section: str, t: Texts, *, reason: str | None = None) -> Advice:
    sentence = t[f"advice_{name}_one"] if count == 1 else t[f"advice_{name}"].format(count=f"{count:,}")
    return Advice(sentence, t[reason or f"advice_{name}_why"], section)
