"""Whether two records show the same image: a second look at what a perceptual hash takes for alike."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.classifier import BATCH_SIZE
from shardstream.predict.inference.records import read_batches

logger = logging.getLogger(__name__)

# Correlation of the details of small color images. Of images of one thing on one background, whose hashes are alike, it
# is at most 0.91 on handwriting, hand signs and product photos; of images that were compressed anew or scaled 0.95 and
# more.
_LEAST_CORRELATION = 0.93

_SIDE = 24
_DECODED = 96
# Every pair costs two small decodes: a few seconds for all of them.
_MAX_PAIRS = 2000


def find_same(
    info: DatasetInfo,
    splits: Sequence[str],
    positions: np.ndarray,
    pairs_of: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns for each list of pairs, as bool [pairs], which of them show the same image.

    Looks at the first 2,000 pairs, list by list. What was not looked at, or lies in shards that are not here, is not
    known to be the same.

    Args:
        info: Of the dataset.
        splits: The split of each entry.
        positions: int64, the place of each entry in its split.
        pairs_of: Lists of pairs of entries, int64 [pairs, 2].
    """
    left = _MAX_PAIRS
    looked_at: dict[str, np.ndarray] = {}
    for name, pairs in pairs_of.items():
        looked_at[name] = pairs[:left]
        left -= len(looked_at[name])
    details = _load_details(info, splits, positions, np.unique(np.concatenate([*looked_at.values()])))
    found = {}
    for name, pairs in pairs_of.items():
        found[name] = np.zeros(len(pairs), bool)
        for i, (one, other) in enumerate(looked_at[name].tolist()):
            if one in details and other in details:
                found[name][i] = float(details[one] @ details[other]) >= _LEAST_CORRELATION
    return found


def image_details(image: np.ndarray) -> np.ndarray:
    """Returns float32 [1728] of length 1: the details of an image, uint8 [height, width, 3], without its large areas.

    Two of them multiplied are their correlation. Large areas of one color, as of one background, would make it high.
    """
    import cv2

    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= cv2.GaussianBlur(small, (0, 0), 3)
    small -= small.mean(axis=(0, 1))
    return small.ravel() / max(float(np.linalg.norm(small)), 1e-6)


def _load_details(
    info: DatasetInfo, splits: Sequence[str], positions: np.ndarray, entries: np.ndarray
) -> dict[int, np.ndarray]:
    details: dict[int, np.ndarray] = {}
    by_split: dict[str, list[int]] = {}
    for entry in entries.tolist():
        by_split.setdefault(str(splits[entry]), []).append(entry)
    for split, rows in by_split.items():
        rows.sort(key=lambda row: positions[row])
        batches = read_batches(
            info, split, positions[rows], image_size=_DECODED, resize="stretch", batch_size=BATCH_SIZE
        )
        try:
            images = [image_details(image) for batch in batches for image in batch.images]
        except DatasetError as error:
            logger.warning("look-alikes of split %r are not compared: %s", split, error)
        else:
            details.update(zip(rows, images, strict=True))
    return details
