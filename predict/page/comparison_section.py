"""The page section that compares with other models on the same records."""

from collections.abc import Iterator, Sequence
from typing import Any

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.predict.metrics.comparison import NUM_SHOWN, Comparison, Part
from shardstream.predict.output.result import Report
from shardstream.predict.page.advice import describe_part
from shardstream.predict.page.formatting import percent, thousands
from shardstream.predict.page.texts.languages import Texts

# Number of classes with the largest differences; metrics.json has all.
_MAX_CLASSES = 30


def comparison_values(report: Report, t: Texts) -> dict[str, Any]:
    """Returns the values of the template; no comparisons if there are no other models."""
    weighted = any(one.is_weighted for one in report.comparisons)
    return {
        "compare_test": t["compare_weighted" if weighted else "compare_mcnemar"],
        "cost": report.cost,
        "comparisons": [_comparison(one, report, t) for one in report.comparisons],
    }


def _comparison(one: Comparison, report: Report, t: Texts) -> dict[str, Any]:
    changes = (
        (False, t["compare_regressions_title"], one.regressions),
        (True, t["compare_fixes_title"], one.fixes),
    )
    return {
        "name": escape_control_chars(one.name),
        "accuracy": one.accuracy.value,
        "whole": _row("", one.whole),
        "p_value": "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}",
        "agreement": one.agreement,
        "kappa": one.kappa,
        "cost": one.cost,
        "sentence": _sentence(one, t),
        "parts": list(_parts(one, report, t)),
        "changes": [
            (fixed, title, len(rows), [_card(row, one, report) for row in rows[:NUM_SHOWN].tolist()])
            for fixed, title, rows in changes
        ],
    }


def _sentence(one: Comparison, t: Texts) -> str:
    difference = one.whole.difference
    verdict, low, high = "compare_no_difference", _points(difference.low), _points(difference.high)
    if one.is_clear:
        is_better = difference.value > 0
        verdict = "compare_better" if is_better else "compare_worse"
        ends = (difference.low, difference.high) if is_better else (-difference.high, -difference.low)
        low, high = map(percent, ends)
    sentence = t[verdict].format(
        name=escape_control_chars(one.name), difference=percent(abs(difference.value)), low=low, high=high
    )
    if one.is_weighted:
        return sentence  # Counts of the sample do not apply to the complete split.
    fixes, regressions = thousands(one.whole.num_fixes), thousands(one.whole.num_regressions)
    return f"{sentence} {t['compare_counts'].format(fixes=fixes, regressions=regressions)}"


def _parts(one: Comparison, report: Report, t: Texts) -> Iterator[dict[str, Any]]:
    """Yields rows for the classes and then for the slices, each sorted by the difference of the models."""
    classes: Sequence[tuple[str, Part]] = [
        (report.display_names[label], part) for label, part in enumerate(one.classes) if part is not None
    ]
    classes = sorted(classes, key=lambda each: -abs(each[1].difference.value))[:_MAX_CLASSES]
    slices = [(describe_part(each, t), each.part) for each in one.slices]
    for name, part in [*classes, *sorted(slices, key=lambda each: -abs(each[1].difference.value))]:
        yield _row(escape_control_chars(name), part)


def _row(name: str, part: Part) -> dict[str, Any]:
    return {
        "name": name,
        "count": part.num_examples,
        "accuracy": part.accuracy,
        "accuracy_other": part.accuracy_other,
        "stands_out": part.stands_out,
        "difference": _points(part.difference.value),
        "low": _points(part.difference.low),
        "high": _points(part.difference.high),
        "fixes": part.num_fixes,
        "regressions": part.num_regressions,
    }


def _points(difference: float) -> str:
    return ("+" if difference > 0 else "") + percent(difference).replace("-", "\u2212")


def _card(row: int, one: Comparison, report: Report) -> dict[str, Any]:
    shown = report.changed[row]
    return {
        "picture": shown.picture.data_uri,
        "path": escape_control_chars(shown.prediction.record.source_path),
        "actual": shown.prediction.actual,
        "predicted": shown.prediction.predicted,
        "probability": shown.prediction.probability,
        "predicted_other": int(one.said.predicted[row]),
        "probability_other": float(one.said.probabilities[row]),
    }
