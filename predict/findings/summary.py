"""What a report finds beyond its figures: where errors gather, and data worth a look."""

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
from shardstream.predict.findings.label_issues import LabelIssues, find_label_issues
from shardstream.predict.findings.odd_images import OddPicture, find_odd_pictures
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.metrics.slices import Slice, find_slices
from shardstream.train.runs.saved_model import ModelInfo

# Of each list the page names so many; the files beside it have all.
NUM_NAMED = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Findings:
    """What is worth a look.

    Attributes:
        slices: Parts of the pictures, compared with others of the same classes.
        labels: Images whose label is probably wrong, the most probable first.
        odd_pictures: Pictures unlike their class, the farthest first.
        duplicates: Look-alikes; None where the dataset cannot tell.
        thumbnails: Pictures of the look-alikes, as far as their shards are here.
    """

    slices: Sequence[Slice]
    labels: LabelIssues
    odd_pictures: Sequence[OddPicture]
    duplicates: Duplicates | None
    thumbnails: Mapping[ManifestEntry, Picture]

    @property
    def named_rows(self) -> np.ndarray:
        """int64, the rows that the page names, each of which should have its picture there."""
        odd = [odd.row for odd in self.odd_pictures[:NUM_NAMED]]
        shown = self.labels.rows if len(self.labels.rows) else self.labels.errors
        return np.concatenate([shown[:NUM_NAMED], np.array(odd, np.int64)])


def find_issues(
    info: DatasetInfo, split_name: str, outcomes: PredictionTable, weights: np.ndarray, model: ModelInfo
) -> Findings:
    """Returns what is worth a look in the predictions of a split, and in the dataset it is of."""
    duplicates = find_duplicates(info, split_name)
    return Findings(
        slices=find_slices(outcomes, weights),
        labels=find_label_issues(outcomes, num_classes=info.num_classes),
        odd_pictures=find_odd_pictures(outcomes),
        duplicates=duplicates,
        thumbnails={} if duplicates is None else load_thumbnails(info, duplicates.copies, model=model),
    )
