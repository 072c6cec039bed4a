import numpy as np
import pytest

from shardstream.train.engine.lbfgs import minimize


def test_a_quadratic_function():
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(30, 30))
    matrix, target = factor @ factor.T + np.eye(30), generator.normal(size=30)

    def function(x):
        return 0.5 * (x - target) @ matrix @ (x - target), matrix @ (x - target)

    found = minimize(function, np.zeros(30), tolerance=1e-9, max_iterations=500)
    np.testing.assert_allclose(found, target, atol=1e-7)


def test_a_curved_valley():
    """Rosenbrock's function: not convex, and slow for gradient descent."""

    def function(x):
        a, b = x
        value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
        return value, np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])

    found = minimize(function, np.array([-1.2, 1.0]), tolerance=1e-8, max_iterations=200)
    np.testing.assert_allclose(found, [1, 1], atol=1e-6)


@pytest.mark.parametrize("start", [np.zeros((2, 3)), np.ones((2, 3))])
def test_points_of_any_shape_and_a_start_at_the_minimum(start):
    function_calls = []

    def function(x):
        function_calls.append(x)
        return float(((x - 1) ** 2).sum()), 2 * (x - 1)

    found = minimize(function, start, tolerance=1e-9, max_iterations=50)
    np.testing.assert_allclose(found, 1, atol=1e-8)
    assert len(function_calls) == 1 or not (start == 1).all()


def test_the_number_of_steps_is_limited():
    calls = []

    def function(x):
        calls.append(1)
        return float((x**4).sum()), 4 * x**3

    minimize(function, np.full(3, 5.0), tolerance=0, max_iterations=3)
    assert len(calls) < 20
