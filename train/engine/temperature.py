"""How sure a model may be: one number that all its logits are divided by.

After Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017).
"""

import numpy as np

# Of fewer predictions the estimate says more about chance than about the model.
MIN_EXAMPLES = 100
_SMALLEST, _LARGEST = 0.1, 10.0
# Each makes the bracket 0.618 times as wide: to a millionth of what it was.
_NUM_STEPS = 30
# Standard deviation of the logarithm, before any prediction was seen. Without it a model that made no mistake would
# be told to be certain.
_PRIOR_STDDEV = 0.5


def fit_temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Returns the temperature, between 0.1 and 10, that makes the labels most probable; 1 of too few examples.

    Its logarithm is taken to be normally distributed around 0 before, which matters where mistakes are few.

    Args:
        logits: [num_examples, num_classes], of examples that the model was not fitted to.
        labels: int [num_examples].
        weights: What each example counts for; by default 1.
    """
    if len(labels) < MIN_EXAMPLES:
        return 1.0
    total = float(len(labels) if weights is None else np.sum(weights))

    def loss(point: float) -> float:
        prior = 0.5 * (point / _PRIOR_STDDEV) ** 2
        return cross_entropy(logits / np.exp(point), labels, weights) + prior / total

    low, high = np.log(_SMALLEST), np.log(_LARGEST)
    golden = (np.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_NUM_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


def cross_entropy(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Returns the weighted mean of the negative logarithms of the probabilities of the true classes."""
    losses = -log_softmax(logits)[np.arange(len(labels)), labels]
    if weights is None:
        return float(losses.mean())
    return float((losses * weights).sum() / np.sum(weights))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the probabilities, of the shape of `logits`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
