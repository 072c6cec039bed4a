"""Distance of an image from the other images of its class, by features."""

import numpy as np

from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.prediction_table import PredictionTable

_NUM_NEIGHBORS = 5
# Images of a class: fewer do not show what is usual, more are not compared.
_MIN_OF_CLASS, _MAX_OF_CLASS = 20, 2000
# Minimum standard deviation of cosines: in a class of nearly identical images, a small difference is not far.
_MIN_SPREAD = 0.02
_SEED = 0


def content_distances(features: DatasetFeatures, split: str, outcomes: PredictionTable) -> np.ndarray:
    """Returns float64 [num_examples], the distance of each image from its class in robust standard deviations.

    The mean cosine similarity to the five nearest images of the class in the complete dataset is compared with the
    median of the class and with that of those five (similar to the local outlier factor, Breunig et al. 2000): a class
    may have many kinds of image, even one whose images differ more from each other, as long as each occurs several
    times. 0 for small classes.
    """
    distances = np.zeros(len(outcomes))
    if split not in features.splits:
        return distances
    for label in np.unique(outcomes.labels):
        vectors, positions = _members(features, split, int(label))
        if len(vectors) < _MIN_OF_CLASS:
            continue
        is_same = np.arange(len(vectors))[:, None] == np.arange(len(vectors))
        usual, nearest = _closeness(vectors @ vectors.T, is_same)
        of_class, of_nearest = _Usual(-usual), _Usual(usual[nearest].mean(axis=1) - usual)
        rows = np.flatnonzero(outcomes.labels == label)
        for part in np.array_split(rows, -(-len(rows) // _MAX_OF_CLASS)):
            own = outcomes.positions[part]
            similarities = features.unit_vectors(split, own) @ vectors.T
            closeness, nearest = _closeness(similarities, own[:, None] == positions)
            distances[part] = np.minimum(
                of_class.distances(-closeness), of_nearest.distances(usual[nearest].mean(axis=1) - closeness)
            )
    return distances


class _Usual:
    """Median and spread of some values, to convert others to robust standard deviations above the median."""

    def __init__(self, values: np.ndarray) -> None:
        self._median = float(np.median(values))
        self._spread = max(1.4826 * float(np.median(np.abs(values - self._median))), _MIN_SPREAD)

    def distances(self, values: np.ndarray) -> np.ndarray:
        return (values - self._median) / self._spread


def _members(features: DatasetFeatures, split: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the feature vectors of a class, and their positions in `split`: -1 for those of other splits."""
    members = [
        (name, row)
        for name in features.splits
        for row in np.flatnonzero(features.splits[name].labels == label)
    ]
    if len(members) > _MAX_OF_CLASS:
        chosen = np.random.default_rng(_SEED).permutation(len(members))[:_MAX_OF_CLASS]
        members = [members[i] for i in np.sort(chosen)]
    parts = [
        features.unit_vectors(name, np.array([row for other, row in members if other == name], np.int64))
        for name in features.splits
    ]
    positions = [row if name == split else -1 for name, row in members]
    return np.concatenate(parts), np.array(positions, np.int64)


def _closeness(similarities: np.ndarray, is_same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of the five highest similarities of each row, excluding itself, and their indices."""
    similarities = np.where(is_same, -1.0, similarities)
    nearest = np.argpartition(similarities, -_NUM_NEIGHBORS, axis=1)[:, -_NUM_NEIGHBORS:]
    return np.take_along_axis(similarities, nearest, axis=1).mean(axis=1), nearest
