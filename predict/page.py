"""index.html: one file that shows everything and loads nothing."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ingest.names import visible
from predict.analysis import Summary, classes_with_most_errors
from predict.gallery import Shown
from predict.provenance import Provenance
from predict.texts import ENGLISH

_TEMPLATES = Path(__file__).parent / "templates"

# A matrix of more classes is not read any more, and one of 1,000 would be a page of 200 MB.
_MATRIX_CLASSES = 30
_WORST_CLASSES = 3
_CONFUSED_PAIRS = 3
_BARS = 3


def render_page(
    summary: Summary,
    pictures: Sequence[Shown],
    provenance: Provenance,
    *,
    class_names: Sequence[str],
    display_names: Sequence[str],
    selection: str,
    texts: Mapping[str, str] = ENGLISH,
) -> str:
    """Returns the whole page as HTML.

    Every name is escaped by the template; scripts and styles are only those whose hashes the page's own
    security policy lists, so nothing that slips through would run or load.
    """
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    matrix_labels = classes_with_most_errors(summary, _MATRIX_CLASSES)
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
            selection=selection,
            worst_classes=summary.worst_classes(_WORST_CLASSES),
            confused_pairs=summary.confused_pairs[:_CONFUSED_PAIRS],
            classes=[
                {"class_name": visible(class_name), "display_name": visible(display_name)}
                for class_name, display_name in zip(class_names, display_names, strict=True)
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
    highest = np.argsort(-prediction.probabilities, kind="stable")[:_BARS].tolist()
    # The actual class is always among the bars: how far off was it?
    bars = highest if prediction.actual in highest else [*highest[:-1], prediction.actual]
    return {
        "right": prediction.right,
        "actual": prediction.actual,
        "predicted": prediction.predicted,
        "probabilities": [(label, float(prediction.probabilities[label])) for label in bars],
        "loss": prediction.loss,
        "source_path": visible(prediction.record.source_path),
        "source_width": prediction.record.source_width,
        "source_height": prediction.record.source_height,
        "picture": shown.picture.data_uri,
    }


def _matrix_rows(confusion: np.ndarray, labels: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"label": actual, "cells": [_cell(confusion, actual, label) for label in labels]} for actual in labels
    ]


def _cell(confusion: np.ndarray, actual: int, predicted: int) -> dict[str, Any]:
    count = int(confusion[actual, predicted])
    # Of the whole row, also where only some of its columns are shown.
    share = count / max(int(confusion[actual].sum()), 1)
    return {"label": predicted, "count": count, "share": share, "shade": min(int(10 * share), 9)}
