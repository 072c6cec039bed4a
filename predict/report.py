"""A run and records in, a folder with the page, the table, the figures and the picture grid out."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingest.metadata import DatasetInfo
from predict.analysis import Summary, summarize
from predict.fonts import Lettering, choose_lettering
from predict.gallery import Gallery, Shown
from predict.gate import Check, Limits, check_limits
from predict.inputs import read_batches
from predict.page import render_page
from predict.plots import GRID_SIZE, write_grid
from predict.predictions import PredictionsFile
from predict.predictor import BATCH_SIZE, Predictor, check_same_classes, load_predictor
from predict.provenance import Provenance, make_metrics, make_provenance
from predict.selection import Selection
from train.export import ModelInfo

PAGE, PREDICTIONS, METRICS, GRID = "index.html", "predictions.csv", "metrics.json", "grid.png"

# The page last: who finds it finds the files it belongs to.
_FILES = (PREDICTIONS, METRICS, GRID, PAGE)

_STAGING_PREFIX = ".incomplete-"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, and where it was written.

    Attributes:
        out: The folder with the files.
        selection: How the pictures were chosen, for people.
        summary: The figures.
        pictures: The wrong ones first, the highest loss first.
        class_names: In label order.
        display_names: In label order.
        lettering: Names and font for drawing on pictures.
        checks: What the limits that the user set came to.
        metrics: What metrics.json holds.
    """

    out: Path
    selection: str
    summary: Summary
    pictures: Sequence[Shown]
    class_names: Sequence[str]
    display_names: Sequence[str]
    lettering: Lettering
    checks: Sequence[Check]
    metrics: dict[str, Any]

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.out / PAGE


def build_report(
    run_dir: Path,
    info: DatasetInfo,
    split_name: str,
    selection: Selection,
    *,
    out: Path,
    gallery_size: int,
    limits: Limits,
    command: str,
    on_progress: Callable[[int], None],
) -> Report:
    """Predicts the selected records and writes index.html, predictions.csv, metrics.json and grid.png.

    Args:
        run_dir: The folder of the training run.
        info: Of the dataset.
        split_name: The split to predict.
        selection: Which of its records.
        out: Made where it is not there; files of the same names are replaced, others stay.
        gallery_size: How many pictures the page has at most.
        limits: What the predictions are to keep to.
        command: What the user called, for the page.
        on_progress: Is told after each batch how many pictures were in it.

    Raises:
        DatasetError: The run has no model, or one for other classes; a shard is damaged.
    """
    check_same_classes(run_dir, ModelInfo.load(run_dir), info)
    predictor = load_predictor(run_dir)
    with _staging(out) as staging:
        gallery = Gallery(gallery_size)
        summary = _predict(
            predictor, info, split_name, selection, gallery, staging / PREDICTIONS, on_progress
        )
        checks = check_limits(summary, info.class_names, limits)
        metrics = make_metrics(
            summary, info, split_name, selection, predictor.info, checks=checks, command=command
        )
        report = Report(
            out=out,
            selection=selection.description,
            summary=summary,
            pictures=gallery.pictures(),
            class_names=info.class_names,
            display_names=info.display_names,
            lettering=choose_lettering(info.display_names, info.class_names),
            checks=checks,
            metrics=metrics,
        )
        _write_json(staging / METRICS, metrics)
        write_grid(staging / GRID, report.pictures, report.lettering, title=_grid_title(report))
        provenance = make_provenance(run_dir, info, split_name, predictor.info, metrics)
        _write_page(staging / PAGE, report, provenance)
        _publish(staging, out)
    return report


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Gives a folder inside `out` to write into, which is removed at the end.

    Inside, so that renaming out of it is one step on the same file system and nothing else is touched.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f"{_STAGING_PREFIX}*"):
        # What a killed run left; a younger one may be a run that is still at work.
        if time.time() - left_over.stat().st_mtime > 24 * 3600:
            shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=_STAGING_PREFIX) as staging:
        yield Path(staging)


def _publish(staging: Path, out: Path) -> None:
    for name in _FILES:
        (staging / name).replace(out / name)


def _predict(
    predictor: Predictor,
    info: DatasetInfo,
    split_name: str,
    selection: Selection,
    gallery: Gallery,
    path: Path,
    on_progress: Callable[[int], None],
) -> Summary:
    """Predicts in one pass; keeps 12 bytes of each picture, a row on disk and perhaps a place in the gallery."""
    num_examples = len(selection.positions)
    labels, predicted = np.empty(num_examples, np.int32), np.empty(num_examples, np.int32)
    losses = np.empty(num_examples, np.float32)
    batches = read_batches(
        info,
        split_name,
        selection.positions,
        image_size=predictor.info.image_size,
        resize=predictor.info.resize,
        batch_size=BATCH_SIZE,
    )
    num_done = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = PredictionsFile(file, info.class_names)
        for batch in batches:
            for prediction, pixels in zip(predictor.predict(batch), batch.images, strict=True):
                labels[num_done], predicted[num_done] = prediction.actual, prediction.predicted
                losses[num_done] = prediction.loss
                rows.write(prediction)
                gallery.offer(prediction, pixels)
                num_done += 1
            on_progress(len(batch.records))
    return summarize(labels, predicted, losses, num_classes=info.num_classes)


def _grid_title(report: Report) -> str:
    summary = report.summary
    low, high = summary.interval
    shown = min(len(report.pictures), GRID_SIZE)
    which = (
        "" if shown == summary.num_examples else f"; {shown} of them, wrong ones first, highest loss first"
    )
    return (
        f"{summary.num_right:,} of {summary.num_examples:,} right: accuracy {summary.accuracy:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}){which}"
    )


def _write_page(path: Path, report: Report, provenance: Provenance) -> None:
    page = render_page(
        report.summary,
        report.pictures,
        provenance,
        class_names=report.class_names,
        display_names=report.display_names,
        selection=report.selection,
    )
    path.write_text(page, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
