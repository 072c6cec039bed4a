"""index.html: one file that shows everything and loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ingest.names import visible
from predict.config import Language
from predict.confusion import Confusion
from predict.gallery import Shown
from predict.result import Report
from predict.texts import TEXTS

_TEMPLATES = Path(__file__).parent / "templates"

# A matrix of more classes is not read any more, and one of 1,000 would be a page of 200 MB.
_MATRIX_CLASSES = 30
_WORST_CLASSES = 3
_CONFUSED_PAIRS = 3
_BARS = 3


def render_page(report: Report, lang: Language) -> str:
    """Returns the whole page as HTML.

    Every name is escaped by the template; scripts and styles are only those whose hashes the page's own
    security policy lists, so nothing that slips through would run or load.
    """
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    texts = TEXTS[lang]
    summary, provenance, pictures = report.summary, report.provenance, report.pictures
    matrix_labels = summary.confusion.classes_with_most_errors(_MATRIX_CLASSES)
    num_wrong = sum(not shown.prediction.right for shown in pictures)
    return (
        _environment()
        .get_template("page.html")
        .render(
            t=texts,
            policy=_policy(style, script),
            # They are the package's own files, without a closing tag in them.
            style=Markup(style),
            script=Markup(script),
            dataset=visible(provenance.dataset),
            split=visible(provenance.split),
            model=visible(provenance.model),
            facts=[(term, visible(fact)) for term, fact in provenance.facts],
            training_config="\n".join(map(visible, provenance.training_config.splitlines())),
            summary=summary,
            selection=report.selection.description,
            worst_classes=summary.worst_classes(_WORST_CLASSES),
            confused_pairs=summary.confusion.confused_pairs()[:_CONFUSED_PAIRS],
            classes=[
                {"class_name": visible(class_name), "display_name": visible(display_name)}
                for class_name, display_name in zip(report.class_names, report.display_names, strict=True)
            ],
            cards=[_card(shown) for shown in pictures],
            pictures_are_records=all(shown.picture.is_record for shown in pictures),
            occurring_labels=[
                figures.label for figures in summary.classes if figures.support or figures.num_predicted
            ],
            verdicts=[
                ("", texts["filter_all"], len(pictures)),
                ("wrong", texts["filter_wrong"], num_wrong),
                ("right", texts["filter_right"], len(pictures) - num_wrong),
            ],
            matrix_labels=matrix_labels,
            matrix_rows=_matrix_rows(summary.confusion, matrix_labels),
        )
    )


def percent(share: float) -> str:
    """Returns a share as people read it: "93.8 %"."""
    return f"{share:.1%}".replace("%", "\u00a0%")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = percent
    return environment


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _card(shown: Shown) -> dict[str, Any]:
    prediction = shown.prediction
    bars = list(zip(prediction.top_labels.tolist(), prediction.top_probabilities.tolist(), strict=True))[
        :_BARS
    ]
    if prediction.actual not in [label for label, _ in bars]:
        # The actual class is always among the bars: how far off was it?
        bars[-1] = (prediction.actual, prediction.actual_probability)
    return {
        "right": prediction.right,
        "actual": prediction.actual,
        "predicted": prediction.predicted,
        "probabilities": bars,
        "loss": prediction.loss,
        "source_path": visible(prediction.record.source_path),
        "source_width": prediction.record.source_width,
        "source_height": prediction.record.source_height,
        "picture": shown.picture.data_uri,
    }


def _matrix_rows(confusion: Confusion, labels: Sequence[int]) -> list[dict[str, Any]]:
    counts, support = confusion.dense(labels), confusion.support
    return [
        {
            "label": actual,
            # Shares are of the whole row, also where only some of its columns are shown.
            "cells": [
                _cell(predicted, int(counts[row, column]), int(support[actual]))
                for column, predicted in enumerate(labels)
            ],
        }
        for row, actual in enumerate(labels)
    ]


def _cell(predicted: int, count: int, support: int) -> dict[str, Any]:
    share = count / max(support, 1)
    return {"label": predicted, "count": count, "share": share, "shade": min(int(10 * share), 9)}
