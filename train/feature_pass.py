"""The pass of a pretrained backbone over the images of a run, which all workers make together."""

import logging
import time
from typing import Any

import keras

from shardstream.train.data.disk_cache import default_cache_dir
from shardstream.train.distributed.preemption import StoppedError, StopRequest, sender
from shardstream.train.distributed.strategy import local_devices, precision_scope
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import Extractor, features_identity, make_extractor
from shardstream.train.engine.shared_blocks import compute_together
from shardstream.train.file_order import named_batches, num_good_examples
from shardstream.train.models.build import build_model
from shardstream.train.models.efficientnet_lite import FEATURES, load_backbone
from shardstream.train.models.pretrained import load_pretrained
from shardstream.train.resolve import ResolvedConfig

logger = logging.getLogger(__name__)


class FeaturePass:
    """Computes the features of splits, or reads them from the cache."""

    def __init__(self, setup: ResolvedConfig, stop: StopRequest) -> None:
        """Takes the run, and what notes the signals of this worker."""
        self._setup = setup
        self._stop = stop
        self._made: list[Extractor] = []
        keeps = setup.config.cache in ("auto", "disk")
        folder = setup.config.cache_dir or default_cache_dir()
        self._cache = FeatureCache(folder if keeps else None)
        self._splits: list[SplitFeatures] = []

    def run(self, split: str) -> SplitFeatures:
        """Returns the features of all images of a split, in file order, with their file names.

        On workers other than the chief some blocks are missing. All workers must call this together.

        Raises:
            DatasetError: A shard is missing, truncated or corrupt.
            StoppedError: A worker received a signal.
        """
        found = SplitFeatures(
            self._identity(split), num_examples=num_good_examples(self._setup, split), cache=self._cache
        )
        self._splits.append(found)
        if num_cached := found.num_done:
            logger.info(
                "features of %s: those of %d of %d images are cached", split, num_cached, found.num_examples
            )
        began, num_missing = time.monotonic(), found.num_examples - found.num_done
        compute_together(
            found,
            self._setup.workers,
            lambda numbers: named_batches(self._setup, split, numbers),
            self._extractors,
            check_stop=self.check_stop,
        )
        if num_missing:
            secs = time.monotonic() - began
            logger.info("features of %s: %d images, %.0f img/s", split, num_missing, num_missing / secs)
        return found

    def _identity(self, split: str) -> dict[str, Any]:
        setup = self._setup
        bad = setup.bad_records.get(split)
        return features_identity(
            setup.config.model,
            dataset=setup.info.fingerprint,
            split=split,
            left_out=bad.positions.tolist() if bad is not None else [],
            image_size=setup.image_size,
            precision=setup.precision,
        )

    def _extractors(self) -> list[Extractor]:
        if not self._made:
            backbone = make_backbone(self._setup)
            self._made = [make_extractor(backbone, device) for device in local_devices(self._setup.strategy)]
        return self._made

    def check_stop(self) -> None:
        """Raises StoppedError if a worker received a signal; all workers must call this together."""
        if number := self._setup.workers.agree(self._stop.received):
            done = sum(split.num_done for split in self._splits)
            kept = self.what_is_kept() if self._setup.workers.is_chief else "all other workers stop as well"
            raise StoppedError(
                f"stopped by {sender(number)} after the features of {done:,} images; {kept}", number
            )

    def what_is_kept(self) -> str:
        """Returns a clause about the features on disk."""
        if kept := sum(split.num_kept for split in self._splits):
            return f"those of {kept:,} are kept, and the same command goes on with the others"
        return "the same command begins anew"


def make_backbone(setup: ResolvedConfig) -> keras.Model:
    """Returns the backbone of a run, from images [batch, size, size, 3] to features float32 [batch, num_features]."""
    with precision_scope(setup.precision):
        model = build_model(
            setup.config.model,
            image_size=setup.image_size,
            num_classes=setup.info.num_classes,
            seed=setup.config.seed,
        )
    load_pretrained_backbone(model, setup.config.model)
    return keras.Model(model.inputs, model.get_layer(FEATURES).output)


def load_pretrained_backbone(model: keras.Model, backbone: str) -> None:
    """Loads the published weights of the backbone into `model`.

    Raises:
        ConfigError: Their package is missing, has another version or was modified.
    """
    load_backbone(model, backbone, load_pretrained(backbone))
