"""All findings of a report besides its metrics: slices with more errors, and data issues."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.findings.duplicates import (
    Duplicates,
    ManifestEntry,
    find_duplicates,
    load_thumbnails,
)
from shardstream.predict.findings.label_check import LabelCheck, check_labels
from shardstream.predict.findings.odd_images import OddPicture, find_odd_pictures
from shardstream.predict.findings.outliers import content_distances
from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.records import read_source_paths
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.metrics.slices import Slice, find_slices
from shardstream.train.runs.saved_model import ModelInfo

# Length of each list on the page; the files have all.
NUM_NAMED = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Findings:
    """Findings of a report.

    Attributes:
        slices: Subsets of the images, compared with others of the same classes.
        labels: Images whose label is probably wrong, most probable first.
        label_rows: Row in the predictions of each image with a label issue, if it was predicted.
        odd_pictures: Images unlike their class, most distant first.
        content_is_known: Whether their content was compared as well.
        source_paths: Source path of each row that the page names, whether its image is shown or not.
        duplicates: Duplicate images; None if the dataset has no manifest.
        thumbnails: Thumbnails of duplicates and of label issues that were not predicted, if their shards are
            available.
    """

    slices: Sequence[Slice]
    labels: LabelCheck
    label_rows: Mapping[ManifestEntry, int]
    odd_pictures: Sequence[OddPicture]
    content_is_known: bool
    source_paths: Mapping[int, str]
    duplicates: Duplicates | None
    thumbnails: Mapping[ManifestEntry, Picture]

    @property
    def named_rows(self) -> np.ndarray:
        """int64, the rows that the page names, whose images should be shown."""
        issues = [
            self.label_rows[issue.entry]
            for issue in self.labels.issues[:NUM_NAMED]
            if issue.entry in self.label_rows
        ]
        return np.array([*issues, *_unlabelled_rows(self.labels, self.odd_pictures)], np.int64)


def _unlabelled_rows(labels: LabelCheck, odd_pictures: Sequence[OddPicture]) -> list[int]:
    """Returns the rows of errors and odd images that the page names."""
    errors = [] if labels.issues else labels.errors[:NUM_NAMED].tolist()
    return [*errors, *(odd.row for odd in odd_pictures[:NUM_NAMED])]


def find_issues(
    info: DatasetInfo,
    split_name: str,
    outcomes: PredictionTable,
    weights: np.ndarray,
    model: ModelInfo,
    features: DatasetFeatures | None,
) -> Findings:
    """Returns the findings in the predictions of a split, and in its dataset.

    Args:
        info: The dataset.
        split_name: The predicted split.
        outcomes: The predictions.
        weights: float32, how many records of the split each stands for.
        model: Metadata of the model, for its image settings.
        features: Features of the dataset's images, if available.
    """
    duplicates = find_duplicates(info, split_name)
    labels = check_labels(info, split_name, outcomes, features)
    label_rows = find_label_rows(labels, split_name, outcomes)
    elsewhere = [issue.entry for issue in labels.issues[:NUM_NAMED] if issue.entry not in label_rows]
    content = None if features is None else content_distances(features, split_name, outcomes)
    odd_pictures = find_odd_pictures(outcomes, content)
    named = _unlabelled_rows(labels, odd_pictures)
    shown = [*elsewhere, *([] if duplicates is None else duplicates.copies)]
    return Findings(
        slices=find_slices(outcomes, weights),
        labels=labels,
        label_rows=label_rows,
        odd_pictures=odd_pictures,
        content_is_known=content is not None,
        source_paths=dict(
            zip(named, read_source_paths(info, split_name, outcomes.positions[named]), strict=True)
        ),
        duplicates=duplicates,
        thumbnails=load_thumbnails(info, list(dict.fromkeys(shown)), model=model) if shown else {},
    )


def find_label_rows(
    labels: LabelCheck, split_name: str, outcomes: PredictionTable
) -> dict[ManifestEntry, int]:
    """Returns the rows in the predictions of the images with label issues, if they were predicted."""
    rows = {int(position): row for row, position in enumerate(outcomes.positions)} if labels.issues else {}
    return {
        issue.entry: rows[issue.entry.position]
        for issue in labels.issues
        if issue.entry.split == split_name and issue.entry.position in rows
    }
