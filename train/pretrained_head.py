"""First stage of a run with a pretrained backbone: computes features once, and fits a classifier to them.

With `--fine-tune none` the run ends here; otherwise the loop fine-tunes more of the model, and the fitted head is the
baseline that its epochs have to beat.
"""

import dataclasses
import io
import json
import logging
import time
from typing import Any

import keras
import numpy as np

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.durations import parse_secs
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.distributed.preemption import StopRequest
from shardstream.train.distributed.strategy import set_deterministic
from shardstream.train.engine.candidates import features_suffice
from shardstream.train.engine.cross_validation import (
    CrossValidation,
    choose_head,
    cross_validate,
    example_weights,
)
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.features import Features
from shardstream.train.engine.groups import find_groups
from shardstream.train.engine.linear_head import LinearHead
from shardstream.train.engine.temperature import cross_entropy
from shardstream.train.feature_pass import FeaturePass, load_pretrained_backbone
from shardstream.train.models.build import CLASSIFIER
from shardstream.train.models.optimizers import balanced_weights
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

    def to_bytes(self) -> bytes:
        """Returns all attributes as bytes."""
        file = io.BytesIO()
        rest = json.dumps({"row": self.row, "suffices": self.suffices})
        np.savez(file, kernel=self.weights[0], bias=self.weights[1], rest=np.asarray(rest))
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "FittedHead":
        """Returns what `to_bytes` was called on."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return cls(weights=[file["kernel"], file["bias"]], **json.loads(str(file["rest"])))


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
    began = time.monotonic()
    train, validation = (split.features for split in _compute_features(setup, grace))
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
    fitted = FittedHead(
        weights=[head.kernel.astype(np.float32), head.bias.astype(np.float32)],
        row=row,
        suffices=suffices,
    )
    setup.workers.broadcast(fitted.to_bytes())
    return fitted


def help_fit_head(setup: ResolvedConfig, grace: str) -> FittedHead:
    """Computes this worker's part of the features, and returns the head that the chief fits to all of them.

    Takes the same arguments, and raises the same errors, as `fit_head`, which the chief must call meanwhile.
    """
    _compute_features(setup, grace)
    return FittedHead.from_bytes(setup.workers.broadcast(b""))


def _compute_features(setup: ResolvedConfig, grace: str) -> list[SplitFeatures]:
    if setup.config.deterministic:
        set_deterministic()
    with StopRequest(parse_secs("grace", grace)) as stop:
        features = FeaturePass(setup, stop)
        stop.what_is_kept = features.what_is_kept
        found = [features.run(split) for split in _SPLITS]
        features.check_stop()
    return found


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
