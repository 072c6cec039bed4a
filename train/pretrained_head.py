"""First stage of a run with a pretrained backbone: computes features once, and fits a classifier to them.

With `--fine-tune none` the run ends here; otherwise the loop fine-tunes more of the model, and the fitted head is the
baseline that its epochs have to beat.
"""

import dataclasses
import logging
import time
from typing import Any

import keras
import numpy as np

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.durations import parse_secs
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.disk_cache import default_cache_dir
from shardstream.train.distributed.preemption import StoppedError, StopRequest, sender
from shardstream.train.distributed.strategy import local_devices, precision_scope, set_deterministic
from shardstream.train.engine.candidates import features_suffice
from shardstream.train.engine.cross_validation import (
    CrossValidation,
    choose_head,
    cross_validate,
    example_weights,
)
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import Extractor, Features, features_identity, make_extractor
from shardstream.train.engine.groups import find_groups
from shardstream.train.engine.linear_head import LinearHead
from shardstream.train.engine.temperature import cross_entropy
from shardstream.train.file_order import named_batches, num_good_examples
from shardstream.train.models.build import CLASSIFIER, build_model
from shardstream.train.models.efficientnet_lite import FEATURES, load_backbone
from shardstream.train.models.optimizers import balanced_weights
from shardstream.train.models.pretrained import load_pretrained
from shardstream.train.resolve import ResolvedConfig

logger = logging.getLogger(__name__)

_SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedHead:
    """A classifier on the features of a backbone, with its metrics.

    Attributes:
        weights: float32 kernel [num_features, num_classes] and bias [num_classes], calibrated.
        row: Row of the history, as epoch 0, and the temperature of `weights`.
        suffices: Whether no other model needs to be trained; None if there is no other.
    """

    weights: list[np.ndarray]
    row: dict[str, float]
    suffices: bool | None

    def model_weights(self, model: keras.Model) -> list[np.ndarray]:
        """Loads the backbone that `model` is named by and this head into `model`, and returns all its weights."""
        load_pretrained_backbone(model, model.name)
        model.get_layer(CLASSIFIER).set_weights(self.weights)
        return model.get_weights()


def load_pretrained_backbone(model: keras.Model, backbone: str) -> None:
    """Loads the published weights of the backbone into `model`.

    Raises:
        ConfigError: Their package is missing, has another version or was modified.
    """
    load_backbone(model, backbone, load_pretrained(backbone))


def fit_head(setup: ResolvedConfig, grace: str, *, is_first_of_two: bool = False) -> FittedHead:
    """Returns the head fitted to the training split, with its metrics on both splits.

    Args:
        setup: The run.
        grace: Grace period after a signal, such as "30s".
        is_first_of_two: Whether another candidate may be trained after it.

    Raises:
        DatasetError: A shard is missing, truncated or corrupt.
        StoppedError: A signal was received.
    """
    if setup.config.deterministic:
        set_deterministic()
    began = time.monotonic()
    with StopRequest(parse_secs("grace", grace)) as stop:
        extractor = _Extractor(setup, stop)
        stop.what_is_kept = extractor.what_is_kept
        train, validation = (extractor.features(split) for split in _SPLITS)
        extractor.check_stop()
    _warn_of_rare_classes(setup.info)
    groups = (
        find_groups(train.names, setup.info.split_rule.keep_together) if train.names is not None else None
    )
    weights = None
    if setup.config.class_weight == "balanced":
        weights = balanced_weights(setup.info.split("train").class_counts)
    options: dict[str, Any] = {
        "num_classes": setup.info.num_classes,
        "seed": setup.config.seed,
        "groups": groups,
        "class_weights": weights,
    }
    head, found = choose_head(train.values, train.labels, **options)
    _log(found)
    suffices = _suffices(train, found, options) if is_first_of_two else None
    secs = time.monotonic() - began
    rate = (len(train.labels) + len(validation.labels)) / secs
    row = {
        "epoch": 0,
        **_figures(head, train, ""),
        **_figures(head, validation, "val_"),
        "learning_rate": 0.0,
        "images_per_sec": rate,
        "images_per_sec_per_core": rate / usable_cores(),
        "input_wait": 0.0,
        "train_secs": secs,
        "temperature": found.temperature,
    }
    return FittedHead(
        weights=[head.kernel.astype(np.float32), head.bias.astype(np.float32)],
        row=row,
        suffices=suffices,
    )


def _suffices(train: Features, found: CrossValidation, options: dict[str, Any]) -> bool:
    of_thumbnails = cross_validate(train.thumbnails, train.labels, **options)
    counts = np.bincount(train.labels, weights=example_weights(train.labels, options["class_weights"]))
    suffices = features_suffice(found, of_thumbnails, largest_class_share=counts.max() / counts.sum())
    logger.info(
        "auto: accuracy %.3f by cross-validation of the features, %.3f of thumbnails; %s",
        found.accuracy,
        of_thumbnails.accuracy,
        "the features are enough" if suffices else "another model is trained",
    )
    return suffices


def _figures(head: LinearHead, features: Features, prefix: str) -> dict[str, float]:
    logits = head.logits(features.values)
    accuracy = float((logits.argmax(axis=1) == features.labels).mean())
    return {f"{prefix}loss": cross_entropy(logits, features.labels), f"{prefix}accuracy": accuracy}


def _log(found: CrossValidation) -> None:
    logger.info(
        "head: accuracy %.3f and loss %.3f by cross-validation on %d images, regularization %g, temperature %.2f",
        found.accuracy,
        found.cross_entropy,
        found.num_examples,
        found.l2,
        found.temperature,
    )


def _warn_of_rare_classes(info: DatasetInfo) -> None:
    counts = dict(zip(info.class_names, info.split("train").class_counts, strict=True))
    for name, count in counts.items():
        if count <= 1:
            images = "one image" if count else "no image"
            logger.warning(
                "class %r has %s in the training split, from which nothing can be learnt", name, images
            )


class _Extractor:
    """Computes the features of splits, or reads them from the cache."""

    def __init__(self, setup: ResolvedConfig, stop: StopRequest) -> None:
        self._setup = setup
        self._stop = stop
        self._extractors: list[Extractor] = []
        keeps = setup.config.cache in ("auto", "disk")
        folder = setup.config.cache_dir or default_cache_dir()
        self._cache = FeatureCache(folder if keeps else None)
        self._splits: list[SplitFeatures] = []

    def features(self, split: str) -> Features:
        """Returns the features of all images of a split, in file order, with their file names."""
        found = SplitFeatures(
            self._identity(split), num_examples=num_good_examples(self._setup, split), cache=self._cache
        )
        self._splits.append(found)
        if num_cached := found.num_done:
            logger.info(
                "features of %s: those of %d of %d images are cached", split, num_cached, found.num_examples
            )
        if found.missing:
            self._compute(found, split)
        return found.features

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

    def _compute(self, found: SplitFeatures, split: str) -> None:
        if not self._extractors:
            backbone, devices = (
                make_backbone(self._setup),
                local_devices(self._setup.strategy, self._setup.num_workers),
            )
            self._extractors = [make_extractor(backbone, device) for device in devices]
        began, num_missing = time.monotonic(), found.num_examples - found.num_done
        found.compute(
            lambda numbers: named_batches(self._setup, split, numbers),
            self._extractors,
            after_batch=self.check_stop,
        )
        secs = time.monotonic() - began
        logger.info("features of %s: %d images, %.0f img/s", split, num_missing, num_missing / secs)

    def check_stop(self) -> None:
        """Raises StoppedError if a signal was received."""
        if number := self._stop.received:
            done = sum(split.num_done for split in self._splits)
            raise StoppedError(
                f"stopped by {sender(number)} after the features of {done:,} images; {self.what_is_kept()}",
                number,
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
