"""Decides whether two records show the same image: compares the pixels of pairs with similar perceptual hashes."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.look_alikes import NEITHER, classify, correlation, make_thumbnail
from shardstream.predict.inference.classifier import BATCH_SIZE
from shardstream.predict.inference.records import read_batches

logger = logging.getLogger(__name__)

_DECODED = 96
# Each pair needs two small decodes: a few seconds in total.
_MAX_PAIRS = 2000


def classify_pairs(
    info: DatasetInfo,
    splits: Sequence[str],
    positions: np.ndarray,
    path: Callable[[int], str],
    pairs_of: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns for each list of pairs whether they are SAME, BURST or NEITHER, uint8 [pairs].

    Compares at most 2,000 pairs, the first of each list, with short lists taken completely. Pairs that were not
    compared, or whose shards are not available, are NEITHER.

    Args:
        info: The dataset.
        splits: The split of each entry.
        positions: int64, the position of each entry in its split.
        path: Returns the path of an entry.
        pairs_of: Lists of pairs of entries, int64 [pairs, 2].
    """
    looked_at = {name: pairs_of[name][:count] for name, count in num_compared(pairs_of).items()}
    wanted = np.unique(np.concatenate([*looked_at.values()]))
    thumbnails = _load_thumbnails(info, splits, positions, wanted)
    # All lists together: whether consecutive file names are meaningful shows only in many pairs.
    compared = np.concatenate([*looked_at.values()])
    likeness = np.array(
        [
            correlation(thumbnails[one], thumbnails[other])
            if one in thumbnails and other in thumbnails
            else 0.0
            for one, other in compared.tolist()
        ]
    )
    kinds = iter(np.split(classify(compared, likeness, path), np.cumsum([*map(len, looked_at.values())])))
    found = {}
    for name, compared in looked_at.items():
        found[name] = np.full(len(pairs_of[name]), NEITHER, np.uint8)
        found[name][: len(compared)] = next(kinds)
    return found


def num_compared(pairs_of: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Returns how many pairs of each list to compare: all of short lists, while the others share the remainder."""
    left, counts = _MAX_PAIRS, {}
    for done, name in enumerate(sorted(pairs_of, key=lambda name: len(pairs_of[name]))):
        counts[name] = min(len(pairs_of[name]), left // (len(pairs_of) - done))
        left -= counts[name]
    return counts


def _load_thumbnails(
    info: DatasetInfo, splits: Sequence[str], positions: np.ndarray, entries: np.ndarray
) -> dict[int, np.ndarray]:
    thumbnails: dict[int, np.ndarray] = {}
    by_split: dict[str, list[int]] = {}
    for entry in entries.tolist():
        by_split.setdefault(str(splits[entry]), []).append(entry)
    for split, rows in by_split.items():
        rows.sort(key=lambda row: positions[row])
        batches = read_batches(
            info, split, positions[rows], image_size=_DECODED, resize="stretch", batch_size=BATCH_SIZE
        )
        try:
            images = [make_thumbnail(image) for batch in batches for image in batch.images]
        except DatasetError as error:
            logger.warning("look-alikes of split %r are not compared: %s", split, error)
        else:
            thumbnails.update(zip(rows, images, strict=True))
    return thumbnails
