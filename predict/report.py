"""Builds the report of a run on records: a folder with the page, tables, metrics and plots."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from shardstream.ingest.common.json_text import json_text
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.compared_models import check_models, short_names
from shardstream.predict.evaluation import evaluate
from shardstream.predict.inference.selection import Sampling, Selection
from shardstream.predict.metrics.gate import Limits
from shardstream.predict.output.findings_file import FINDINGS, finding_columns, write_findings
from shardstream.predict.output.grid import GRID_SIZE, write_grid
from shardstream.predict.output.plots import write_calibration, write_confusion_matrix
from shardstream.predict.output.prediction_files import add_columns, predictions_files, read_source_paths
from shardstream.predict.output.result import Report
from shardstream.predict.output.staging import KNOWN_FILES, METRICS, PAGE, publish, staging_in
from shardstream.predict.page.render import render_page
from shardstream.predict.page.texts.languages import Language

PARQUET, TABLE = "predictions.parquet", "predictions.csv"
GRID, MATRIX, CALIBRATION = "grid.png", "confusion_matrix.png", "calibration.png"


def build_report(
    run_dir: Path,
    info: DatasetInfo,
    selection: Selection,
    *,
    out: Path,
    lang: Language,
    compare: Sequence[Path] = (),
    sampling: Sampling = "uniform",
    gallery_size: int = 200,
    limits: Limits | None = None,
    seed: int = 123,
    explain: bool = True,
    command: str = "",
    images: Path | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Predicts the selected records and writes the page and all other files.

    Args:
        run_dir: The run folder.
        info: The dataset.
        selection: The records to predict.
        out: The report folder, created if missing; an earlier report is replaced, other files stay.
        lang: Language of the page.
        compare: See `evaluation.evaluate`, as for the following options.
        sampling: Which records to show first.
        gallery_size: Maximum number of images on the page.
        limits: Thresholds that the predictions must meet.
        seed: Seed of the random choice of images to show.
        explain: See `evaluation.evaluate`.
        command: The command line, for the page.
        images: See `evaluation.evaluate`.
        on_progress: Called after each batch with its number of images.

    Raises:
        ConfigError: The folder has files that are not a report.
        DatasetError: The run has no model, or one for other classes; a shard is corrupt.
    """
    check_models([run_dir, *compare], info)  # Before anything is created.
    with staging_in(out) as staging:
        with predictions_files(
            staging / PARQUET, staging / TABLE, info.class_names, others=short_names(compare)
        ) as files:
            report = evaluate(
                run_dir,
                info,
                selection,
                compare=compare,
                sampling=sampling,
                gallery_size=gallery_size,
                limits=limits,
                seed=seed,
                explain=explain,
                command=command,
                images=images,
                files=files,
                on_progress=on_progress,
            )
        report = dataclasses.replace(report, out=out)
        _write_findings(report, staging)
        _write_plots(report, staging)
        (staging / METRICS).write_text(json_text(report.metrics), encoding="utf-8")
        (staging / PAGE).write_text(render_page(report, lang), encoding="utf-8", errors="backslashreplace")
        is_replaced = publish(staging, out, KNOWN_FILES)
    return dataclasses.replace(report, is_replaced=is_replaced)


def _write_findings(report: Report, staging: Path) -> None:
    """Writes findings.csv, and adds the findings of each record to the tables of predictions."""
    findings, outcomes, split = report.findings, report.outcomes, report.selection.split
    columns = finding_columns(findings, outcomes, split)
    add_columns(staging / PARQUET, staging / TABLE, columns)
    write_findings(
        staging / FINDINGS,
        findings,
        outcomes,
        read_source_paths(staging / PARQUET, columns["odd_image"]),
        split=split,
        class_names=report.class_names,
    )


def _write_plots(report: Report, staging: Path) -> None:
    summary = report.summary
    write_grid(staging / GRID, report.pictures, report.lettering, title=_grid_title(report))
    write_confusion_matrix(staging / MATRIX, summary.confusion, report.lettering)
    write_calibration(staging / CALIBRATION, report.calibration, summary.accuracy)


def _grid_title(report: Report) -> str:
    summary = report.summary
    accuracy = summary.accuracy
    shown = min(len(report.pictures), GRID_SIZE)
    which = "" if shown == summary.num_examples else f"; {shown} of them"
    return (
        f"{summary.num_right:,} of {summary.num_examples:,} correct: accuracy {accuracy.value:.1%} "
        f"(95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}){which}"
    )
