"""Nearest training images by features: what a model may have learnt its answer from."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.findings.duplicates import ManifestEntry, load_thumbnails
from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.thumbnails import Picture
from shardstream.train.runs.saved_model import ModelInfo

TRAIN = "train"

# Neighbors per image: a row of the large view.
NUM_NEIGHBORS = 3
_MAX_TRAINING_IMAGES = 100_000
# A block takes 20 MB as float32.
_BLOCK_ROWS = 4096
# Smaller than a thumbnail of the lists: there may be 600 of them.
_SIDE = 72
_MAX_BYTES = 500_000
_SEED = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbor:
    """A training image similar to another image.

    Attributes:
        entry: The training image.
        label: Its class.
        similarity: Cosine similarity of the features, at most 1.
    """

    entry: ManifestEntry
    label: int
    similarity: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Neighbors:
    """The nearest training images of some images.

    Attributes:
        of_row: Neighbors by row of the predictions, most similar first.
        thumbnails: Their thumbnails, as far as the page has room.
    """

    of_row: Mapping[int, Sequence[Neighbor]]
    thumbnails: Mapping[ManifestEntry, Picture]


def find_neighbors(
    features: DatasetFeatures,
    training: DatasetInfo,
    queries: np.ndarray,
    rows: np.ndarray,
    *,
    model: ModelInfo,
    own_positions: np.ndarray | None = None,
) -> Neighbors:
    """Returns the nearest training images of some images.

    Args:
        features: Features of the training dataset; at most 100,000 training images are searched.
        training: That dataset.
        queries: float32 [num_images, num_features], unit vectors.
        rows: int64 [num_images], their rows in the predictions.
        model: Metadata of the model, for its image settings.
        own_positions: int64 [num_images]: positions of the images themselves in the training split, if they are in it.

    Raises:
        DatasetError: A shard is corrupt.
    """
    train = features.splits[TRAIN]
    candidates = np.arange(len(train.labels))
    if len(candidates) > _MAX_TRAINING_IMAGES:
        chosen = np.random.default_rng(_SEED).choice(candidates, _MAX_TRAINING_IMAGES, replace=False)
        candidates = np.sort(chosen)
    count = min(NUM_NEIGHBORS, len(candidates) - (own_positions is not None))
    best = np.full((len(queries), max(count, 0)), -1.0, np.float32)
    places = np.zeros(best.shape, np.int64)
    for start in range(0, len(candidates) if count > 0 else 0, _BLOCK_ROWS):
        block = candidates[start : start + _BLOCK_ROWS]
        similarities = queries @ features.unit_vectors(TRAIN, block).T
        if own_positions is not None:  # An image is not its own neighbor.
            similarities[own_positions[:, None] == block] = -1
        merged = np.concatenate([best, similarities], axis=1)
        order = np.argsort(-merged, axis=1, kind="stable")[:, :count]
        numbers = np.concatenate([places, np.broadcast_to(block, similarities.shape)], axis=1)
        best, places = np.take_along_axis(merged, order, 1), np.take_along_axis(numbers, order, 1)
    names = train.names
    found = {
        row: [
            Neighbor(
                ManifestEntry(
                    path=names[place] if names else f"record {place}",
                    class_name=training.class_names[train.labels[place]],
                    split=TRAIN,
                    position=place,
                ),
                label=int(train.labels[place]),
                similarity=similarity,
            )
            for place, similarity in zip(row_places, row_best, strict=True)
        ]
        for row, row_places, row_best in zip(rows.tolist(), places.tolist(), best.tolist(), strict=True)
    }
    entries = list(dict.fromkeys(neighbor.entry for neighbors in found.values() for neighbor in neighbors))
    return Neighbors(
        of_row=found, thumbnails=_within(load_thumbnails(training, entries, model=model, side=_SIDE))
    )


def _within(thumbnails: Mapping[ManifestEntry, Picture]) -> dict[ManifestEntry, Picture]:
    """Returns the first thumbnails, as many as the page has room for."""
    kept, num_bytes = {}, 0
    for entry, picture in thumbnails.items():
        num_bytes += len(picture.content)
        if num_bytes > _MAX_BYTES:
            break
        kept[entry] = picture
    return kept
