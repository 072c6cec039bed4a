"""Temperature scaling: calibrates a model by dividing all its logits by one number.

After Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017).
"""

import numpy as np

# With fewer predictions the estimate is mostly noise.
MIN_EXAMPLES = 100
_SMALLEST, _LARGEST = 0.1, 10.0
# Of the logarithm.
_TOLERANCE = 1e-6
# Standard deviation of the prior on the log temperature. Without a prior, a model without errors would get the
# lowest temperature.
_PRIOR_STDDEV = 0.5


def fit_temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Returns the temperature, between 0.1 and 10, that maximizes the posterior; 1 with too few examples.

    The prior of its logarithm is normal around 0, which matters if there are few errors.

    Args:
        logits: [num_examples, num_classes], of examples that the model was not fitted to.
        labels: int [num_examples].
        weights: Weight of each example; by default 1.
    """
    from scipy.optimize import minimize_scalar  # Slow to import.

    if len(labels) < MIN_EXAMPLES:
        return 1.0
    total = float(len(labels) if weights is None else np.sum(weights))

    def loss(point: float) -> float:
        prior = 0.5 * (point / _PRIOR_STDDEV) ** 2
        return cross_entropy(logits / np.exp(point), labels, weights) + prior / total

    bounds = (np.log(_SMALLEST), np.log(_LARGEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    return float(np.exp(found.x))


def cross_entropy(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Returns the weighted mean of the negative log probabilities of the true classes."""
    losses = -log_softmax(logits)[np.arange(len(labels)), labels]
    if weights is None:
        return float(losses.mean())
    return float((losses * weights).sum() / np.sum(weights))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the log probabilities, in the shape of `logits`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
