"""L-BFGS for smooth convex functions (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5)."""

import logging
from collections import deque
from collections.abc import Callable

import numpy as np

logger = logging.getLogger(__name__)

# Number of previous steps used to estimate the curvature.
_HISTORY = 12
_SUFFICIENT_DECREASE = 1e-4
_MAX_HALVINGS = 30


def minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    tolerance: float,
    max_iterations: int,
) -> np.ndarray:
    """Returns the minimizer of `function`, float64 of the shape of `start`.

    Stops when no element of the gradient exceeds `tolerance`, or when no step decreases the value. The order of all
    sums depends only on the shape.

    Args:
        function: Returns the value and the gradient at a point.
        start: Starting point.
        tolerance: Tolerance per element of the gradient.
        max_iterations: A warning is logged if they do not suffice.
    """
    point = np.array(start, np.float64)
    value, gradient = function(point)
    history: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_HISTORY)
    for _ in range(max_iterations):
        if np.abs(gradient).max() <= tolerance:
            return point
        direction = -_inverse_hessian_product(history, gradient)
        slope = dot(gradient, direction)
        # The first direction has no curvature estimate yet, so its length is arbitrary.
        step = 1.0 if history else min(1.0, 1.0 / np.sqrt(-slope))
        for _ in range(_MAX_HALVINGS):
            new_value, new_gradient = function(point + step * direction)
            if new_value <= value + _SUFFICIENT_DECREASE * step * slope:
                break
            step /= 2
        else:
            return point  # The minimum in float64.
        change, gradient_change = step * direction, new_gradient - gradient
        if dot(change, gradient_change) > 0:
            history.append((change, gradient_change))
        point, value, gradient = point + change, new_value, new_gradient
    logger.debug(
        "L-BFGS ends after %d iterations with a gradient of %g", max_iterations, np.abs(gradient).max()
    )
    return point


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the dot product by NumPy's pairwise sum, which unlike BLAS does not depend on the number of threads."""
    return float((a * b).sum())


def _inverse_hessian_product(
    history: deque[tuple[np.ndarray, np.ndarray]], gradient: np.ndarray
) -> np.ndarray:
    direction = gradient.copy()
    factors = []
    for change, gradient_change in reversed(history):
        factor = dot(change, direction) / dot(change, gradient_change)
        direction -= factor * gradient_change
        factors.append(factor)
    if history:
        change, gradient_change = history[-1]
        direction *= dot(change, gradient_change) / dot(gradient_change, gradient_change)
    for (change, gradient_change), factor in zip(history, reversed(factors), strict=True):
        direction += (factor - dot(gradient_change, direction) / dot(change, gradient_change)) * change
    return direction
