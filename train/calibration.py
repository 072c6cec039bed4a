"""Calibrates the best model of a run: its last layer is scaled by a temperature fitted to validation predictions."""

import dataclasses
import logging
from collections.abc import Sequence

import keras
import numpy as np

from shardstream.train.engine.features import extract_features, make_extractor
from shardstream.train.engine.linear_head import LinearHead
from shardstream.train.engine.temperature import MIN_EXAMPLES, cross_entropy, fit_temperature
from shardstream.train.file_order import named_batches, num_good_examples
from shardstream.train.models.build import CLASSIFIER
from shardstream.train.resolve import ResolvedConfig

logger = logging.getLogger(__name__)

_SPLIT = "validation"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """Result of the calibration.

    Attributes:
        temperature: Divisor of the logits.
        weights: Calibrated weights, in Keras's order.
        val_loss: Calibrated cross-entropy on the validation split.
    """

    temperature: float
    weights: Sequence[np.ndarray]
    val_loss: float


def calibrate(setup: ResolvedConfig, model: keras.Model, weights: Sequence[np.ndarray]) -> Calibration | None:
    """Returns the calibration of a model; None with too few images.

    Predicted classes do not change.

    Args:
        setup: The run.
        model: The model in float32; its weights are replaced by `weights`.
        weights: Weights to calibrate, in Keras's order.

    Raises:
        DatasetError: A shard is missing, truncated or corrupt.
    """
    num_examples = num_good_examples(setup, _SPLIT)
    if num_examples < MIN_EXAMPLES:
        return None
    model.set_weights(list(weights))
    classifier = model.get_layer(CLASSIFIER)
    features = extract_features(
        named_batches(setup, _SPLIT, np.arange(num_examples)),
        make_extractor(keras.Model(model.inputs, classifier.input)),
        num_examples=num_examples,
    )
    kernel, bias = (np.asarray(values, np.float64) for values in classifier.get_weights())
    logits = LinearHead(kernel, bias).logits(features.values)
    temperature = fit_temperature(logits, features.labels)
    classifier.set_weights([kernel / temperature, bias / temperature])
    before, after = (cross_entropy(logits / divisor, features.labels) for divisor in (1.0, temperature))
    logger.info("calibrated: temperature %.2f, val_loss %.4f instead of %.4f", temperature, after, before)
    return Calibration(temperature=temperature, weights=model.get_weights(), val_loss=after)
