"""Trains a Keras model in a loop of your own, on all GPUs of this machine, and evaluates each image exactly once.

    python -m scripts.examples.custom_loop DATA [--steps 1000]

A batch depends only on (data, batch size, seed, step): a loop that saves its step resumes with `start_step`.
"""

# Keras has incomplete type hints.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportFunctionMemberAccess=false, reportCallIssue=false, reportOperatorIssue=false

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import shardstream


def main() -> None:
    """Trains for some steps, then evaluates."""
    parser = argparse.ArgumentParser(description="Trains in a loop of its own under MirroredStrategy.")
    parser.add_argument("data", type=Path, help="a dataset folder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--start-step", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64, help="of all devices together")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cpus", type=int, help="logical CPU devices instead of GPUs, to try it out")
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    strategy = make_strategy(args.cpus)

    data = shardstream.load_dataset(args.data)
    with strategy.scope():
        model = build_model(data)
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)

    def train_on_replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            loss = tf.reduce_sum(losses) / args.batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # Sums the gradients of the replicas.
        return loss

    @tf.function
    def train_step(batch: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(train_on_replica, batch), axis=None)

    batches = data.train_batches(args.batch_size, seed=args.seed, start_step=args.start_step)
    for step, batch in enumerate(strategy.experimental_distribute_dataset(batches), args.start_step):
        if step == args.steps:
            break
        loss = train_step(batch)
        if step % 100 == 0 or step == args.steps - 1:
            print(f"step {step}: loss {float(loss):.4f}", flush=True)
    correct, total = evaluate(model, data, strategy, args.batch_size)
    print(
        f"validation accuracy {correct / total:.3f} of {total} images on {strategy.num_replicas_in_sync} devices"
    )


def evaluate(
    model: keras.Model, data: shardstream.Dataset, strategy: tf.distribute.Strategy, batch_size: int
) -> tuple[int, int]:
    """Returns the number of correct predictions on the validation split, and the number of its images.

    Padded batches have a fixed shape, so that each replica gets the same number of rows; padding has weight 0.
    """

    def count_on_replica(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        predicted = tf.argmax(model(images, training=False), axis=1, output_type=labels.dtype)
        return tf.reduce_sum(
            tf.stack([tf.cast(predicted == labels, tf.float32), tf.ones_like(weights)]) * weights, 1
        )

    @tf.function
    def count(batch: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(count_on_replica, batch), axis=None)

    batches = data.eval_batches("validation", batch_size=batch_size, pad_last_batch=True)
    counts = [count(batch).numpy() for batch in strategy.experimental_distribute_dataset(batches)]
    correct, total = (int(value) for value in np.sum(counts, axis=0))
    return correct, total


def make_strategy(num_cpus: int | None) -> tf.distribute.Strategy:
    """Returns a strategy over all GPUs, or over logical CPU devices."""
    if not num_cpus:
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_cpus)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(num_cpus)])


def build_model(data: shardstream.Dataset) -> keras.Model:
    """Returns a small CNN."""
    return keras.Sequential(
        [
            keras.Input((data.image_size, data.image_size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(data.class_names), activation="softmax"),
        ]
    )


if __name__ == "__main__":
    main()
