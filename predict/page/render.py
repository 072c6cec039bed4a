"""index.html: a self-contained file that loads nothing."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.predict.output.result import Report
from shardstream.predict.page import charts
from shardstream.predict.page.advice import advise
from shardstream.predict.page.cards import make_card
from shardstream.predict.page.comparison_section import comparison_values
from shardstream.predict.page.findings_section import findings_values
from shardstream.predict.page.formatting import as_data, percent, thousands
from shardstream.predict.page.matrix import MAX_CLASSES, MAX_PAIRS, matrix_rows, sparse_cells
from shardstream.predict.page.provenance import provenance_facts
from shardstream.predict.page.texts.languages import TEXTS, Language, Texts, describe_selection

_TEMPLATES = Path(__file__).parent / "templates"
_STYLES = ("page.css", "sections.css", "print.css")
_SCRIPTS = ("gallery.js", "large.js", "matrix.js", "tables.js")

_WORST_CLASSES = 3
_CONFUSED_PAIRS = 3
_MAX_UNTESTED = 10

# Bars in more rows would make the page larger than its images do.
_CLASSES_WITH_BARS = 60


def render_page(report: Report, lang: Language) -> str:
    """Returns the complete page as HTML.

    Every name is escaped by the template; the content security policy allows only scripts and styles with the listed
    hashes, so injected content would neither run nor load anything.
    """
    parts = [
        _head,
        _answer,
        _gallery,
        _classes,
        _matrix,
        _calibration,
        findings_values,
        comparison_values,
        _provenance,
    ]
    values: dict[str, Any] = {}
    for part in parts:
        values |= part(report, TEXTS[lang])
    return render("page.html", TEXTS[lang], values)


def render(template: str, t: Texts, values: Mapping[str, Any]) -> str:
    """Returns a page with the styles, scripts and security policy of all pages."""
    style, script = _joined(_STYLES), _joined(_SCRIPTS)
    # These are files of the package, without a closing tag in them.
    own = {"policy": _policy(style, script), "style": Markup(style), "script": Markup(script)}
    return _environment().get_template(template).render(t=t, **values, **own)


def _head(report: Report, t: Texts) -> dict[str, Any]:
    provenance = report.provenance
    names = zip(report.class_names, report.display_names, strict=True)
    return {
        "dataset": escape_control_chars(provenance.dataset),
        "split": escape_control_chars(provenance.split),
        "run": escape_control_chars(provenance.run),
        "model": escape_control_chars(provenance.model),
        "classes": [
            {
                "class_name": escape_control_chars(class_name),
                "display_name": escape_control_chars(display_name),
            }
            for class_name, display_name in names
        ],
        "summary": report.summary,
        "selection": escape_control_chars(describe_selection(report.selection, t)),
    }


def _answer(report: Report, t: Texts) -> dict[str, Any]:
    summary = report.summary
    figures = [
        ("balanced_accuracy", summary.balanced_accuracy, percent),
        ("macro_f1", summary.macro_f1, percent),
        ("top5_accuracy", summary.top5_accuracy, percent),
        ("mean_loss", summary.mean_loss, "{:.3f}".format),
        ("ece", report.calibration.ece, "{:.3f}".format),
        ("brier", summary.brier, "{:.3f}".format),
    ]
    return {
        "untested": _untested(report, t),
        "is_weighted": report.selection.rule == "stratified",
        "worst_classes": summary.worst_classes(_WORST_CLASSES),
        "confused_pairs": summary.confusion.confused_pairs()[:_CONFUSED_PAIRS],
        "advice": [
            {
                "sentence": escape_control_chars(one.sentence),
                "reason": escape_control_chars(one.reason),
                "section": one.section,
            }
            for one in advise(report, t)
        ],
        "key_figures": [
            {
                "name": t[name],
                "meaning": t[f"{name}_meaning"],
                "value": shown(figure.value),
                "low": shown(figure.low),
                "high": shown(figure.high),
            }
            for name, figure, shown in figures
            if figure is not None
        ],
    }


def _untested(report: Report, t: Texts) -> str:
    """Returns the names of the classes without images; of many the first."""
    labels = report.summary.untested
    names = ", ".join(escape_control_chars(report.display_names[label]) for label in labels[:_MAX_UNTESTED])
    if len(labels) <= _MAX_UNTESTED:
        return names
    return t["untested_more"].format(names=names, count=thousands(len(labels) - _MAX_UNTESTED))


def _gallery(report: Report, t: Texts) -> dict[str, Any]:
    pictures, summary = report.pictures, report.summary
    num_wrong = sum(not shown.prediction.right for shown in pictures)
    by_loss = not num_wrong and report.sampling in ("uniform", "stratified")
    return {
        "order": t["order_worst" if by_loss else f"order_{report.sampling}"],
        "gallery_empty": t[
            "no_errors"
            if report.sampling == "confident-errors" and not summary.num_wrong
            else "gallery_empty"
        ],
        "cards": [make_card(shown, int(row)) for shown, row in zip(pictures, report.rows, strict=True)],
        "pictures_are_records": all(shown.picture.is_record for shown in pictures),
        "occurring_labels": [
            figures.label for figures in summary.classes if figures.support or figures.num_predicted
        ],
        "verdicts": [
            ("", t["filter_all"], len(pictures)),
            ("wrong", t["filter_wrong"], num_wrong),
            ("right", t["filter_right"], len(pictures) - num_wrong),
        ],
    }


def _classes(report: Report, _: Texts) -> dict[str, Any]:
    return {"with_bars": len(report.class_names) <= _CLASSES_WITH_BARS}


def _matrix(report: Report, t: Texts) -> dict[str, Any]:
    confusion = report.summary.confusion
    labels = confusion.classes_with_most_errors(MAX_CLASSES)
    pairs = confusion.confused_pairs()
    cells = sparse_cells(confusion) if len(labels) < confusion.num_classes else []
    data = {
        "cells": cells,
        "support": confusion.support.tolist() if cells else [],
        "most": labels,
        "cell": t["matrix_cell"],
    }
    return {
        "matrix_labels": labels,
        "matrix_rows": matrix_rows(confusion, labels),
        "pairs": pairs[:MAX_PAIRS],
        "num_pairs": len(pairs),
        "matrix_part": t["matrix_part" if pairs else "matrix_part_right"].format(
            shown=len(labels), all=thousands(confusion.num_classes)
        ),
        "matrix_data": as_data(data),
    }


def _calibration(report: Report, _: Texts) -> dict[str, Any]:
    calibration = report.calibration
    half = next(one for one in calibration.coverage if one.share >= 0.5)
    return {
        "calibration": calibration,
        "charts": charts,
        "half": half,
    }


def _provenance(report: Report, t: Texts) -> dict[str, Any]:
    config = report.provenance.training_config
    return {
        "facts": [
            (term, escape_control_chars(fact)) for term, fact in provenance_facts(report.provenance, t)
        ],
        "training_config": "\n".join(map(escape_control_chars, config.splitlines())),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": percent, "thousands": thousands}
    return environment


def _joined(names: tuple[str, ...]) -> str:
    return "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
