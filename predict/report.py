"""A run and records in, a folder with the page, the tables, the figures and the plots out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.compared_models import ModelComparison, load_compared_models, short_names
from shardstream.predict.findings.gallery import Shown, choose_rows, load_shown
from shardstream.predict.findings.summary import find_issues
from shardstream.predict.inference.classifier import check_same_classes
from shardstream.predict.inference.predict_loop import predict_records
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.selection import Sampling, Selection
from shardstream.predict.inference.thumbnails import PICTURE_BYTES
from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import summarize
from shardstream.predict.metrics.comparison import Comparison
from shardstream.predict.metrics.gate import Limits, check_limits
from shardstream.predict.output.fonts import choose_label_font
from shardstream.predict.output.grid import GRID_SIZE, write_grid
from shardstream.predict.output.metrics_json import comparison_metrics, make_metrics, make_provenance
from shardstream.predict.output.plots import write_calibration, write_confusion_matrix
from shardstream.predict.output.prediction_files import predictions_files
from shardstream.predict.output.result import PAGE, Report
from shardstream.predict.output.staging import publish, staging_in
from shardstream.predict.page.render import render_page
from shardstream.predict.page.texts.languages import Language
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo

PARQUET, TABLE, METRICS = "predictions.parquet", "predictions.csv", "metrics.json"
GRID, MATRIX, CALIBRATION = "grid.png", "confusion_matrix.png", "calibration.png"

# The page last: who finds it finds the files it belongs to.
_FILES = (PARQUET, TABLE, METRICS, GRID, MATRIX, CALIBRATION, PAGE)

_CHANGED_BYTES = 300_000


def build_report(
    run_dir: Path,
    info: DatasetInfo,
    selection: Selection,
    *,
    compare: Sequence[Path],
    sampling: Sampling,
    out: Path,
    gallery_size: int,
    limits: Limits,
    seed: int,
    lang: Language,
    command: str,
    on_progress: Callable[[int], None],
) -> Report:
    """Predicts the selected records and writes the page and the files beside it.

    Args:
        run_dir: The folder of the training run.
        info: Of the dataset.
        selection: Which of its records.
        compare: The run folders of other models that see the same records.
        sampling: Which of them are shown first.
        out: Made where it is not there; files of the same names are replaced, others stay.
        gallery_size: How many pictures the page has at most.
        limits: What the predictions are to keep to.
        seed: Decides which pictures of too many it has.
        lang: The language of the page.
        command: What the user called, for the page.
        on_progress: Is told after each batch how many pictures were in it.

    Raises:
        DatasetError: The run has no model, or one for other classes; a shard is damaged.
    """
    check_same_classes(run_dir, ModelInfo.load(run_dir), info)
    predictor, *others = load_compared_models([run_dir, *compare], info)
    with staging_in(out) as staging:
        with predictions_files(
            staging / PARQUET, staging / TABLE, info.class_names, others=short_names(compare)
        ) as files:
            panel = ModelComparison(others, len(selection.positions), files)
            outcomes = predict_records(
                predictor, info, selection.split, selection.positions, writer=panel, on_progress=on_progress
            )
        comparisons = panel.compare(outcomes, selection.weights, num_classes=info.num_classes)
        summary = summarize(outcomes, selection.weights, num_classes=info.num_classes)
        calibration = calibrate(outcomes, selection.weights)
        findings = find_issues(info, selection.split, outcomes, predictor.info)
        rows = choose_rows(outcomes, sampling, gallery_size, seed=seed, named=findings.named_rows)
        checks = check_limits(summary, info.class_names, limits)
        metrics = make_metrics(
            summary,
            calibration,
            info,
            selection,
            predictor.info,
            model_sha256=file_sha256(RunFolder(run_dir).best_model),
            findings=findings,
            checks=checks,
            command=command,
        )
        metrics |= comparison_metrics(comparisons, predictor.cost, info.class_names)
        report = Report(
            out=out,
            sampling=sampling,
            selection=selection,
            outcomes=outcomes,
            summary=summary,
            calibration=calibration,
            findings=findings,
            rows=rows,
            pictures=load_shown(
                info,
                selection.split,
                outcomes,
                rows,
                model=predictor.info,
                max_bytes=PICTURE_BYTES // max(len(rows), 1),
            ),
            class_names=info.class_names,
            display_names=info.display_names,
            lettering=choose_label_font(info.display_names, info.class_names),
            checks=checks,
            cost=predictor.cost,
            comparisons=comparisons,
            changed=_load_changed(info, selection, outcomes, comparisons, predictor.info),
            metrics=metrics,
            provenance=make_provenance(run_dir, info, selection.split, predictor.info, metrics),
        )
        _write_json(staging / METRICS, report.metrics)
        write_grid(staging / GRID, report.pictures, report.lettering, title=_grid_title(report))
        write_confusion_matrix(staging / MATRIX, summary.confusion, report.lettering)
        write_calibration(staging / CALIBRATION, calibration, summary.accuracy)
        (staging / PAGE).write_text(render_page(report, lang), encoding="utf-8")
        publish(staging, out, _FILES)
    return report


def _load_changed(
    info: DatasetInfo,
    selection: Selection,
    outcomes: PredictionTable,
    comparisons: Sequence[Comparison],
    model: ModelInfo,
) -> dict[int, Shown]:
    """Returns the pictures that the page shows of those that only one of two models gets right."""
    rows = np.unique(np.concatenate([np.array([], np.int64), *(one.shown_rows() for one in comparisons)]))
    max_bytes = _CHANGED_BYTES // max(len(rows), 1)
    shown = load_shown(info, selection.split, outcomes, rows, model=model, max_bytes=max_bytes)
    return dict(zip(rows.tolist(), shown, strict=True))


def _grid_title(report: Report) -> str:
    summary = report.summary
    accuracy = summary.accuracy
    shown = min(len(report.pictures), GRID_SIZE)
    which = "" if shown == summary.num_examples else f"; {shown} of them"
    return (
        f"{summary.num_right:,} of {summary.num_examples:,} right: accuracy {accuracy.value:.1%} "
        f"(95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}){which}"
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
