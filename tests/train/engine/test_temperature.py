import numpy as np
import pytest

from shardstream.train.engine.temperature import cross_entropy, fit_temperature


def drawn(temperature, num_examples=20_000, seed=0):
    """Logits whose probabilities are true once they are divided by `temperature`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (num_examples, 4))
    noise = generator.gumbel(size=logits.shape)
    return logits * temperature, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_the_temperature_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_few_predictions_say_nothing():
    assert fit_temperature(*drawn(3, num_examples=99)) == 1
    assert fit_temperature(*drawn(3, num_examples=0)) == 1


def test_predictions_that_are_all_correct_do_not_make_the_model_certain():
    labels = np.arange(300) % 3
    logits = np.eye(3)[labels]
    assert 0.1 < fit_temperature(logits, labels) < 1
    # A millionth of doubt is left where the margin is wide already.
    assert fit_temperature(20 * logits, labels) > 0.9


def test_weights():
    logits, labels = drawn(1, num_examples=400)
    weights = np.where(np.arange(400) < 200, 2.0, 0.0)
    assert fit_temperature(logits, labels, weights) == pytest.approx(
        fit_temperature(logits[:200], labels[:200], np.full(200, 2.0))
    )
    assert cross_entropy(logits, labels, weights) == pytest.approx(cross_entropy(logits[:200], labels[:200]))
