"""Features of every image of a dataset by a backbone pretrained on ImageNet, independent of the report's model.

They are kept in the feature cache, shared with later reports and with trainings of the same backbone.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.dataset import Dataset
from shardstream.train.data.disk_cache import default_cache_dir
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import (
    Extractor,
    Features,
    features_identity,
    make_extractor,
    named_batches,
)
from shardstream.train.models.build import build_pretrained_backbone
from shardstream.train.models.efficientnet_lite import EMBEDDING_SIZE
from shardstream.train.models.pretrained import PACKAGES, find_weights_file
from shardstream.train.models.registry import AUTO_BACKBONE, BACKBONES, MIN_BACKBONE_SIZE

logger = logging.getLogger(__name__)

BACKBONE = AUTO_BACKBONE

# At 4.1 kB of memory each.
MAX_IMAGES = 100_000
# Takes minutes on two cores; for more images only cached features are used, which training computes.
_MAX_COMPUTED = 10_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DatasetFeatures:
    """Features of the images of a dataset.

    Attributes:
        splits: Features by split name, in file order; a split is missing if any of its shards is.
    """

    splits: Mapping[str, Features]

    @property
    def num_images(self) -> int:
        """Number of images in all splits."""
        return sum(len(features.labels) for features in self.splits.values())

    def embeddings(self, split: str) -> np.ndarray:
        """Returns float16 [num_images, 1280]: what images show, without the details that a head sees as well."""
        return self.splits[split].values[:, :EMBEDDING_SIZE]

    def unit_vectors(self, split: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns float32 [rows, 1280], unit vectors of the embeddings: their dot products are cosine similarities."""
        values = self.embeddings(split)[rows].astype(np.float32)
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def load_features(info: DatasetInfo) -> DatasetFeatures | None:
    """Returns the features of all splits, from the cache or computed.

    None, with the reason in the log, if the weights are not installed, or the dataset has too many images or none that
    are large enough.
    """
    if reason := _why_not(info):
        logger.info("findings use the predictions alone: %s", reason)
        return None
    found: dict[str, Features] = {}
    cache = FeatureCache(default_cache_dir())
    extractor = _Extractor(info)
    num_images = sum(split.num_examples for split in info.splits.values())
    for split in sorted(info.splits):
        if not info.split(split).num_examples:
            continue
        try:
            blocks = SplitFeatures(
                extractor.identity(split), num_examples=info.split(split).num_examples, cache=cache
            )
            if blocks.missing and num_images > _MAX_COMPUTED:
                logger.info(
                    "findings use the predictions alone: too many images (%d) to compute features for a report",
                    num_images,
                )
                return None
            if blocks.missing:
                extractor.compute(blocks, split)
            found[split] = blocks.features
        except ConfigError as error:  # The weights file was modified.
            logger.warning("findings use the predictions alone: %s", error)
            return None
        except DatasetError as error:
            logger.warning("findings do without the images of split %r: %s", split, error)
    return DatasetFeatures(found) if found else None


def _why_not(info: DatasetInfo) -> str:
    num_images = sum(split.num_examples for split in info.splits.values())
    if num_images > MAX_IMAGES:
        return f"the dataset has {num_images:,} images, more than {MAX_IMAGES:,}"
    if (info.image.size or MIN_BACKBONE_SIZE) < MIN_BACKBONE_SIZE:
        return f"images of {info.image.size} pixels are too small for the backbone {BACKBONE}"
    try:
        find_weights_file(PACKAGES[BACKBONE])
    except ConfigError as error:
        return str(error)
    return ""


class _Extractor:
    """Computes the features of splits; the backbone is built on first use."""

    def __init__(self, info: DatasetInfo) -> None:
        self._info = info
        self._image_size = info.image.size or BACKBONES[BACKBONE]
        self._extract: Extractor | None = None

    def identity(self, split: str) -> dict[str, Any]:
        """Returns what determines the features of a split: the same as in training with this backbone."""
        return features_identity(
            BACKBONE,
            dataset=self._info.fingerprint,
            split=split,
            left_out=[],
            image_size=self._image_size,
            precision="float32",
        )

    def compute(self, blocks: SplitFeatures, split: str) -> None:
        """Computes the missing blocks of a split."""
        if self._extract is None:
            self._extract = make_extractor(build_pretrained_backbone(BACKBONE, image_size=self._image_size))
        num_missing = blocks.num_examples - blocks.num_done
        logger.info("computing features of %d images of split %r by %s", num_missing, split, BACKBONE)
        began, data = time.monotonic(), Dataset(self._info)
        blocks.compute(
            lambda numbers: named_batches(data, split, numbers, image_size=self._image_size), [self._extract]
        )
        logger.info("features of split %r: %.0f img/s", split, num_missing / (time.monotonic() - began))
