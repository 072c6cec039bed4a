"""Softmax regression on the features of a frozen backbone: the last layer of a model, fitted exactly.

The result is bit for bit the same for any number of threads: the examples are divided into blocks of fixed size, each
matrix product is computed by one thread, and the results of the blocks are summed in order.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.train.engine.temperature import log_softmax

_BLOCK_ROWS = 256
# Number of blocks whose gradients are in memory at once.
_BLOCKS_IN_FLIGHT = 16
# Standardized features up to this size are kept as float64; above it, blocks are recomputed in each evaluation.
_MAX_KEPT_BYTES = 1 << 30
# Number of previous steps that L-BFGS estimates the curvature from.
_HISTORY = 12
# A feature with a smaller standard deviation is constant up to rounding.
_MIN_STDDEV = 1e-6
# Fraction of the median over all features. A feature that hardly varies in the examples may vary in a new image:
# divided by its own standard deviation it would have a value of a thousand there, and dominate the prediction.
_STDDEV_FLOOR = 0.1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """A linear classifier.

    Attributes:
        kernel: float64 [num_features, num_classes].
        bias: float64 [num_classes].
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns float64 [num_examples, num_classes], bit for bit the same for any number of threads."""
        with _one_blas_thread():
            blocks = [features[rows].astype(np.float64) @ self.kernel for rows in _blocks(len(features))]
        return np.concatenate(blocks) + self.bias if blocks else np.zeros((0, len(self.bias)))

    def calibrated(self, temperature: float) -> "LinearHead":
        """Returns the head whose logits are those of this one divided by `temperature`."""
        return LinearHead(self.kernel / temperature, self.bias / temperature)


class HeadProblem:
    """The examples to fit heads to, in memory.

    Needs 8 bytes per feature value up to 1 GB, and beyond that as much as the features themselves: 100,000 examples of
    2,048 float32 features are 0.8 GB, a million of float16 are 4.1 GB.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, *, num_classes: int, weights: np.ndarray | None = None
    ) -> None:
        """Takes the examples.

        Args:
            features: float16 or float32 [num_examples, num_features].
            labels: int [num_examples], from 0 to `num_classes` - 1.
            num_classes: Number of outputs.
            weights: float [num_examples]: weight of each example; by default 1.
        """
        self.num_classes = num_classes
        self._features, self._labels = features, labels
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
        self._weights = weights / weights.sum()
        self._mean, self._stddev = _moments(features)
        self._kept: list[np.ndarray] | None = None
        if features.size * np.dtype(np.float64).itemsize <= _MAX_KEPT_BYTES:
            self._kept = [self._standardized(rows) for rows in _blocks(len(features))]

    def fit(
        self,
        l2: float,
        *,
        start: LinearHead | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 500,
    ) -> LinearHead:
        """Returns the head that minimizes the mean cross-entropy plus l2 / 2 times the squared weights, by L-BFGS.

        The weights are those of standardized features; the biases are not regularized.

        Args:
            l2: Strength of the regularization.
            start: A head to start from, with about the same strength.
            tolerance: Tolerance per element of the gradient.
            max_iterations: Maximum number of iterations.
        """
        from scipy.optimize import minimize  # Slow to import.

        begin = self._to_point(start) if start else np.zeros((len(self._mean) + 1, self.num_classes))
        with _one_blas_thread(), ThreadPoolExecutor(usable_cores()) as pool:

            def loss_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
                loss, gradient = self._loss_and_gradient(point.reshape(begin.shape), l2, pool)
                return loss, gradient.ravel()

            # No `ftol`: only the gradient ends a fit.
            options = {"maxcor": _HISTORY, "gtol": tolerance, "ftol": 0.0, "maxiter": max_iterations}
            found = minimize(loss_and_gradient, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
        return self._to_head(found.x.reshape(begin.shape))

    def _loss_and_gradient(
        self, point: np.ndarray, l2: float, pool: ThreadPoolExecutor
    ) -> tuple[float, np.ndarray]:
        kernel = point[:-1]
        loss, gradient = 0.5 * l2 * float((kernel * kernel).sum()), np.zeros_like(point)
        gradient[:-1] = l2 * kernel
        blocks = iter(enumerate(_blocks(len(self._labels))))
        while group := list(itertools.islice(blocks, _BLOCKS_IN_FLIGHT)):
            for block_loss, block_gradient in pool.map(lambda block: self._block(point, *block), group):
                loss += block_loss
                gradient += block_gradient
        return loss, gradient

    def _block(self, point: np.ndarray, number: int, rows: slice) -> tuple[float, np.ndarray]:
        features = self._kept[number] if self._kept is not None else self._standardized(rows)
        labels, weights = self._labels[rows], self._weights[rows]
        log_probabilities = log_softmax(features @ point[:-1] + point[-1])
        examples = np.arange(len(labels))
        loss = -float((weights * log_probabilities[examples, labels]).sum())
        errors = np.exp(log_probabilities)
        errors[examples, labels] -= 1
        errors *= weights[:, None]
        # Transposed, as BLAS takes a third less time to multiply few rows than few columns.
        return loss, np.concatenate([(errors.T @ features).T, errors.sum(axis=0, keepdims=True)])

    def _standardized(self, rows: slice) -> np.ndarray:
        return (self._features[rows].astype(np.float64) - self._mean) / self._stddev

    def _to_head(self, point: np.ndarray) -> LinearHead:
        kernel = point[:-1] / self._stddev[:, None]
        return LinearHead(kernel, point[-1] - (self._mean[:, None] * kernel).sum(axis=0))

    def _to_point(self, head: LinearHead) -> np.ndarray:
        bias = head.bias + (self._mean[:, None] * head.kernel).sum(axis=0)
        return np.concatenate([head.kernel * self._stddev[:, None], bias[None]])


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and divisor of each feature, float64: the divisor is its standard deviation, with a lower limit.

    The divisor is 1 for a constant feature.
    """
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for rows in _blocks(len(features)):
        total += features[rows].sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    for rows in _blocks(len(features)):
        squares += np.square(features[rows].astype(np.float64) - mean).sum(axis=0)
    stddev = np.sqrt(squares / len(features))
    varies = stddev >= _MIN_STDDEV
    least = _STDDEV_FLOOR * float(np.median(stddev[varies])) if varies.any() else 0.0
    return mean, np.where(varies, np.maximum(stddev, least), 1.0)


def _blocks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, num_rows))


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
    # With several threads, BLAS would split a product by their number, and sum the parts accordingly.
    return threadpoolctl.threadpool_limits(1, user_api="blas")
