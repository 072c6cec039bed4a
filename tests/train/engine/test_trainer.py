"""What one step does with options that change it, beside the same done by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.distributed.strategy import precision_scope, set_seed
from shardstream.train.engine.trainer import Trainer
from shardstream.train.models.phases import compile_phase

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
LABELS = np.asarray([0] * 8 + [1] * 3 + [2], np.int32)


def make_steps(policy="float32", optimizer=None, dropout=0.2, **options) -> Trainer:
    set_seed(0)
    with precision_scope(policy):
        model = keras.Sequential(
            [
                keras.Input((4, 4, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(5, activation="relu"),
                keras.layers.Dropout(dropout, seed=1),
                keras.layers.Dense(3, activation="softmax", dtype="float32"),
            ]
        )
        phases = [compile_phase(model, optimizer or keras.optimizers.SGD(1.0))]
    return Trainer(model, tf.distribute.get_strategy(), phases=phases, label_smoothing=0.0, **options)


def batch(part=slice(None)) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(IMAGES[part]), tf.constant(LABELS[part])


def change(steps: Trainer, *batches) -> list[np.ndarray]:
    """What a call does to the weights."""
    before = steps.model.get_weights()
    steps.train(*(batches or [batch()]))
    return [new - old for new, old in zip(steps.model.get_weights(), before, strict=True)]


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays)))


def test_class_weights_count_an_example_as_often_as_they_say():
    # Every example of the second class twice and the last three times, in a mean over twelve.
    found = change(make_steps(class_weights=(1.0, 2.0, 3.0)))
    steps = make_steps()
    with tf.GradientTape() as tape:
        probabilities = steps.model(IMAGES, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(LABELS, probabilities)
        loss = tf.reduce_sum(losses * tf.constant([1.0] * 8 + [2.0] * 3 + [3.0])) / 12
    expected = tape.gradient(loss, steps.model.trainable_variables)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, -theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_gradients_are_clipped_together_whatever_they_were_scaled_with(policy):
    free = change(make_steps(policy))
    clipped = change(make_steps(policy, clip_norm=0.1))
    assert norm(free) > 0.2
    assert norm(clipped) == pytest.approx(0.1, rel=0.01)
    for mine, theirs in zip(clipped, free, strict=True):
        np.testing.assert_allclose(mine, theirs * 0.1 / norm(free), atol=1e-3)
    loose = change(make_steps(policy, clip_norm=1000.0))
    for mine, theirs in zip(loose, free, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_infinite_gradients_of_half_precision_are_no_end():
    """Loss scaling begins too high and comes down: such a step changes nothing, and the loss is a number."""
    with precision_scope("mixed_float16"):
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=2.0**40)
    steps = make_steps("mixed_float16", scaled, clip_norm=1.0)
    for _ in range(3):
        assert norm(change(steps)) == 0
    assert float(scaled.dynamic_scale) == 2.0**37
    for _ in range(30):
        steps.train(batch())
    assert norm(change(steps)) > 0
    assert steps.trained.num_finite_steps() == 34
    assert steps.is_finite(steps.state())


def test_several_steps_in_one_call_are_those_steps():
    parts = [slice(0, 4), slice(4, 8), slice(8, 12)]
    one, all_at_once = make_steps(), make_steps()
    for part in parts:
        one.train(batch(part))
    all_at_once.train(*map(batch, parts))
    for (name, mine), theirs in zip(one.state().items(), all_at_once.state().values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, err_msg=name)
    assert all_at_once.trained.num_seen() == 12


def test_xla_does_the_same():
    # But for random numbers, which it draws in another way.
    compiled, plain = (change(make_steps(dropout=0.0, jit_compile=jit)) for jit in (True, False))
    for mine, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
