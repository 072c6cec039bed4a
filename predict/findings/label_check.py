"""Finds probable label errors of a dataset, by features of all its images or else by the model's predictions."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.findings.duplicates import ManifestEntry
from shardstream.predict.findings.label_issues import LabelIssues, find_label_issues
from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.prediction_table import (
    ClassPredictions,
    PredictionTable,
    class_predictions,
)
from shardstream.predict.inference.records import read_source_paths
from shardstream.train.engine.cross_validation import NUM_FOLDS, predict_out_of_fold
from shardstream.train.engine.groups import find_groups

logger = logging.getLogger(__name__)

# Images times classes: two minutes on two cores.
_MAX_OUTPUTS = 1_000_000
# With fewer images in a class, nothing is known about it when some are held out.
_MIN_OF_CLASS = 2 * NUM_FOLDS
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LabelIssue:
    """An image whose label is probably wrong.

    Attributes:
        entry: The image.
        label: Its given class.
        suggested: The class that it looks like.
        probability: Probability of the suggested class.
        wrong_label_probability: Probability that the label is wrong.
    """

    entry: ManifestEntry
    label: int
    suggested: int
    probability: float
    wrong_label_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelCheck:
    """Result of the label check.

    Attributes:
        source: Whether features of the complete dataset were used, or the model's predictions of the split.
        num_checked: Number of images checked.
        issues: Label issues, most probable first.
        errors: int64, rows of the predictions: the most confident errors, if there are no `issues`.
    """

    source: Literal["features", "predictions"]
    num_checked: int
    issues: Sequence[LabelIssue]
    errors: np.ndarray

    @property
    def expected_precision(self) -> float | None:
        """The expected fraction of the list that is labelled wrong; None if the list is empty."""
        if not self.issues:
            return None
        return float(np.mean([issue.wrong_label_probability for issue in self.issues]))


def check_labels(
    info: DatasetInfo, split: str, outcomes: PredictionTable, features: DatasetFeatures | None
) -> LabelCheck:
    """Returns the images of the dataset whose label is probably wrong.

    With features, every image of every split is predicted by a linear head that was not fitted to it, and the
    predictions are compared with the labels (as in the first step of Northcutt, Jiang and Chuang, "Confident Learning",
    2021). If that finds no label issue, or there are no features, the model's own predictions of one split are used.
    """
    by_model = find_label_issues(outcomes, num_classes=info.num_classes)
    found = None if features is None else check_by_features(info, features)
    if found is not None and (found[0].issues or not len(by_model.rows)):
        return dataclasses.replace(found[0], errors=by_model.errors)
    paths = read_source_paths(info, split, outcomes.positions[by_model.rows])
    entries = [
        ManifestEntry(
            path=path, class_name=info.class_names[outcomes.labels[row]], split=split,
            position=int(outcomes.positions[row]),
        )
        for path, row in zip(paths, by_model.rows.tolist(), strict=True)
    ]  # fmt: skip
    return LabelCheck(
        source="predictions",
        num_checked=len(outcomes),
        issues=_issues(entries, outcomes, by_model),
        errors=by_model.errors,
    )


def check_by_features(
    info: DatasetInfo, features: DatasetFeatures
) -> tuple[LabelCheck, ClassPredictions] | None:
    """Returns the result by features, and the out-of-fold predictions; None if features cannot be used."""
    splits = list(features.splits)
    labels = np.concatenate([features.splits[split].labels for split in splits])
    counts = np.bincount(labels, minlength=info.num_classes)
    rows = np.flatnonzero(counts[labels] >= _MIN_OF_CLASS)
    if len(rows) * info.num_classes > _MAX_OUTPUTS or len(np.unique(labels[rows])) < 2:
        return None
    names = [
        name
        for split in splits
        for name in features.splits[split].names or [""] * len(features.splits[split].labels)
    ]
    # Fitted to details as well, a head learns wrong labels by heart more readily.
    values = np.concatenate([features.embeddings(split) for split in splits])[rows]
    try:
        groups = find_groups([names[row] for row in rows.tolist()], info.split_rule.keep_together)
    except DatasetError as error:
        logger.warning("labels are not checked by features: %s", error)
        return None
    predictions = _predict(values, labels[rows], info.num_classes, groups)
    found = find_label_issues(predictions, num_classes=info.num_classes)
    sizes = [len(features.splits[split].labels) for split in splits]
    firsts = np.cumsum([0, *sizes])

    def entry(row: int) -> ManifestEntry:
        number = int(np.searchsorted(firsts, row, "right")) - 1
        return ManifestEntry(
            path=names[row],
            class_name=info.class_names[labels[row]],
            split=splits[number],
            position=int(row - firsts[number]),
        )

    check = LabelCheck(
        source="features",
        num_checked=len(rows),
        issues=_issues([entry(row) for row in rows[found.rows].tolist()], predictions, found),
        errors=found.rows[:0],
    )
    return check, predictions


def _predict(
    values: np.ndarray, labels: np.ndarray, num_classes: int, groups: np.ndarray | None
) -> ClassPredictions:
    order, parts = [], []
    for rows, probabilities in predict_out_of_fold(
        values, labels, num_classes=num_classes, seed=_SEED, groups=groups
    ):
        order.append(rows)
        parts.append(class_predictions(labels[rows], probabilities))
    back = np.argsort(np.concatenate(order))
    columns = (field.name for field in dataclasses.fields(ClassPredictions))
    return ClassPredictions(
        **{name: np.concatenate([getattr(part, name) for part in parts])[back] for name in columns}
    )


def _issues(
    entries: Sequence[ManifestEntry], predictions: ClassPredictions, found: LabelIssues
) -> list[LabelIssue]:
    return [
        LabelIssue(
            entry=entry,
            label=int(predictions.labels[row]),
            suggested=int(predictions.predicted[row]),
            probability=float(predictions.probabilities[row]),
            wrong_label_probability=chance,
        )
        for entry, row, chance in zip(entries, found.rows.tolist(), found.probabilities.tolist(), strict=True)
    ]
