"""The metrics and findings of a report, computed without writing anything."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.compared_models import ModelComparison, load_compared_models
from shardstream.predict.config import PredictConfig
from shardstream.predict.findings.gallery import Shown, choose_rows, load_shown
from shardstream.predict.findings.neighbors import TRAIN, Neighbors, find_neighbors
from shardstream.predict.findings.summary import find_issues
from shardstream.predict.inference.backbone_features import DatasetFeatures, load_features
from shardstream.predict.inference.predict_loop import predict_records
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.selection import Sampling, Selection
from shardstream.predict.inference.thumbnails import PICTURE_BYTES
from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import summarize
from shardstream.predict.metrics.comparison import Comparison
from shardstream.predict.metrics.gate import Limits, check_limits
from shardstream.predict.output.fonts import choose_label_font
from shardstream.predict.output.metrics_json import comparison_metrics, make_metrics, make_provenance
from shardstream.predict.output.prediction_files import PredictionsFiles
from shardstream.predict.output.result import Report
from shardstream.train.data.folder import load_info
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo
from shardstream.train.runs.training_dataset import find_training_dataset

_CHANGED_BYTES = 300_000


def evaluate(
    run_dir: Path,
    info: DatasetInfo,
    selection: Selection,
    *,
    compare: Sequence[Path] = (),
    sampling: Sampling = "uniform",
    gallery_size: int = 200,
    limits: Limits | None = None,
    seed: int = 123,
    explain: bool = True,
    command: str = "",
    images: Path | None = None,
    files: PredictionsFiles | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Predicts the selected records and returns the report.

    Args:
        run_dir: The run folder.
        info: The dataset.
        selection: The records to predict.
        compare: The run folders of other models to compare on the same records.
        sampling: Which records to show first.
        gallery_size: Maximum number of images in the report.
        limits: Thresholds that the predictions must meet.
        seed: Seed of the random choice of images to show.
        explain: Whether to compute features of all images of the dataset, unless cached: for the nearest training
            images, and for the label check of the complete dataset.
        command: The command line.
        images: The source images, if the dataset was made for this report only.
        files: Writer of the predictions; None to write nothing.
        on_progress: Called after each batch with its number of images.

    Raises:
        DatasetError: The run has no model, or one for other classes; a shard is corrupt.
    """
    model, *others = load_compared_models([run_dir, *compare], info)
    weights, num_classes = selection.weights, info.num_classes
    comparison = ModelComparison(others, len(selection.positions), files)
    outcomes = predict_records(
        model, info, selection.split, selection.positions, writer=comparison, on_progress=on_progress
    )
    comparisons = comparison.compare(outcomes, weights, num_classes=num_classes)
    summary = summarize(outcomes, weights, num_classes=num_classes)
    calibration = calibrate(outcomes, weights)
    features = load_features(info) if explain else None
    findings = find_issues(info, selection.split, outcomes, weights, model.info, features)
    checks = check_limits(summary, info.class_names, limits or Limits())
    metrics = make_metrics(
        summary,
        calibration,
        info,
        selection,
        model.info,
        model_sha256=file_sha256(open_run(run_dir).best_model),
        findings=findings,
        checks=checks,
        command=command,
    )
    metrics |= comparison_metrics(comparisons, model.cost, info.class_names)
    rows = choose_rows(outcomes, sampling, gallery_size, seed=seed, named=findings.named_rows)
    max_bytes = PICTURE_BYTES // max(len(rows), 1)
    return Report(
        sampling=sampling,
        selection=selection,
        outcomes=outcomes,
        summary=summary,
        calibration=calibration,
        findings=findings,
        rows=rows,
        neighbors=_find_neighbors(run_dir, info, selection, outcomes, rows, model.info, features),
        pictures=load_shown(info, selection.split, outcomes, rows, model=model.info, max_bytes=max_bytes),
        class_names=info.class_names,
        display_names=info.display_names,
        lettering=choose_label_font(info.display_names, info.class_names),
        checks=checks,
        cost=model.cost,
        comparisons=comparisons,
        changed=_load_changed(info, selection, outcomes, comparisons, model.info),
        metrics=metrics,
        provenance=make_provenance(
            run_dir, info, selection.split, model.info, metrics, data_dir=images or info.data_dir
        ),
    )


def evaluate_config(config: PredictConfig) -> Report:
    """Returns the report requested by the command's options, without writing it.

    Raises:
        ConfigError, DatasetError: As in the command.
    """
    info = load_info(config.data)
    selection = config.select(info)
    return evaluate(
        config.run,
        info,
        selection,
        compare=config.compare,
        sampling=config.sampling,
        gallery_size=config.gallery_size,
        limits=Limits(accuracy=config.min_accuracy, class_recall=config.min_class_recall),
        seed=config.seed_used,
        explain=config.explain,
    )


def _find_neighbors(
    run_dir: Path,
    info: DatasetInfo,
    selection: Selection,
    outcomes: PredictionTable,
    rows: np.ndarray,
    model: ModelInfo,
    features: DatasetFeatures | None,
) -> Neighbors | None:
    """Returns the nearest training images of the images shown; None if unknown."""
    if features is None or selection.split not in features.splits:
        return None
    is_same = model.dataset_fingerprint == info.fingerprint
    training = info if is_same else find_training_dataset(run_dir, model)
    of_training = features if is_same else None if training is None else load_features(training)
    if training is None or of_training is None or TRAIN not in of_training.splits:
        return None
    positions = outcomes.positions[rows]
    return find_neighbors(
        of_training,
        training,
        features.unit_vectors(selection.split, positions),
        rows,
        model=model,
        own_positions=positions if is_same and selection.split == TRAIN else None,
    )


def _load_changed(
    info: DatasetInfo,
    selection: Selection,
    outcomes: PredictionTable,
    comparisons: Sequence[Comparison],
    model: ModelInfo,
) -> dict[int, Shown]:
    """Returns the images to show of those that only one of two models predicts correctly."""
    rows = np.unique(np.concatenate([np.array([], np.int64), *(one.shown_rows() for one in comparisons)]))
    max_bytes = _CHANGED_BYTES // max(len(rows), 1)
    shown = load_shown(info, selection.split, outcomes, rows, model=model, max_bytes=max_bytes)
    return dict(zip(rows.tolist(), shown, strict=True))
