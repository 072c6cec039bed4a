"""How unlike the other images of its class an image is, by features."""

import numpy as np

from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.prediction_table import PredictionTable

_NUM_NEIGHBORS = 5
# What is usual for a class is known from so many of its images.
_MIN_OF_CLASS, _MAX_OF_CLASS = 20, 2000
# Of cosines: where a class is almost one image, nothing that differs a little is far.
_MIN_SPREAD = 0.02
_SEED = 0


def content_distances(features: DatasetFeatures, split: str, outcomes: PredictionTable) -> np.ndarray:
    """Returns how far each predicted image is from its class, float64 [num_examples], in robust standard deviations.

    What is measured is the mean cosine with the five most similar images of the class in the whole dataset, against
    the median of the class and against those five (the local outlier factor, Breunig et al. 2000, compares in the same
    way): a class may have many kinds of image, also one whose images are less alike than those of the others, as long
    as each is there several times. 0 for small classes.
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
    """What is usual of some values, and how many robust standard deviations others lie above it."""

    def __init__(self, values: np.ndarray) -> None:
        self._median = float(np.median(values))
        self._spread = max(1.4826 * float(np.median(np.abs(values - self._median))), _MIN_SPREAD)

    def distances(self, values: np.ndarray) -> np.ndarray:
        return (values - self._median) / self._spread


def _members(features: DatasetFeatures, split: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of images of a class, and where they are in `split`: -1 for those of other splits."""
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
    """Returns the mean of the five highest similarities of each row, without those with itself, and where they are."""
    similarities = np.where(is_same, -1.0, similarities)
    nearest = np.argpartition(similarities, -_NUM_NEIGHBORS, axis=1)[:, -_NUM_NEIGHBORS:]
    return np.take_along_axis(similarities, nearest, axis=1).mean(axis=1), nearest
