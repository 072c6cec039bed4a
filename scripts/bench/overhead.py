"""Measures the overhead of our loop per epoch over a bare `model.fit`: meters, history, checkpoints, curves and all.

    python -m scripts.bench.overhead DATA [--image-size 128] [--epochs 20] [--augmentation none]

All train `small` on the same decoded images in memory, for the same number of steps, and evaluate after each epoch.
`fit` gets them in the two fastest ways: as arrays, and as a `tf.data.Dataset` of them. The three alternate in one
process, an epoch each; the time of an epoch is that of its complete turn, including whatever happens between two
epochs. The first two, which include tracing, are left out. The baseline is the faster `fit`. What our loop saves and
draws from time to time is scheduled by the clock, which continues during the turns of the others: so it happens three
times as often here as in a normal run.
"""

import collections
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from shardstream.train.config import TrainConfig
from shardstream.train.models.registry import AugmentationName
from shardstream.train.startup import start_tensorflow

OURS = "shardstream"
_TRACING_EPOCHS = 2  # `fit` traces again in its second epoch.

# Wall-clock and CPU seconds of an epoch.
Times = tuple[float, float]
# Trains, and calls its argument at the end of each epoch.
Trainer = Callable[[Callable[[], None]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures what an epoch of our loop takes over a bare `model.fit`."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    image_size: int | None = None
    """By default the stored size. The shorter an epoch is, the more of it is what our loop does between two of them."""
    batch_size: int = 32
    """Pictures per step."""
    epochs: int = 20
    """Of each of the three."""
    augmentation: AugmentationName = "default"
    """In `fit` it is a layer before the model."""


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        options = TrainConfig(
            data_dir=config.data_dir,
            run=Path(folder) / "run",
            model="small",
            image_size=config.image_size,
            batch_size=config.batch_size,
            epochs=config.epochs,
            augmentation=config.augmentation,
            label_smoothing=0.0,  # So that the loss equals that of `fit` for integer labels.
            cache="memory",
            precision="float32",
        )
        trainers: dict[str, Trainer] = {
            "model.fit, arrays": functools.partial(fit, options, as_arrays),
            "model.fit, tf.data": functools.partial(fit, options, as_datasets),
            OURS: functools.partial(train, options),
        }
        times = take_turns(trainers)
    report(times)


def report(times: dict[str, list[Times]]) -> None:
    """Prints the means, which include what happens only in some epochs, and the overhead of ours."""
    print("| | s an epoch | core s an epoch |\n|---|---|---|")
    means = {}
    for name, epochs in times.items():
        means[name] = [statistics.mean(column) for column in zip(*epochs, strict=True)]
        print(f"| {name} | {means[name][0]:.3f} | {means[name][1]:.3f} |")
    for column, unit in enumerate(("on the clock", "of core time")):
        baseline = min(set(means) - {OURS}, key=lambda name: means[name][column])
        more = means[OURS][column] / means[baseline][column] - 1
        print(f"Ours takes {more:+.1%} {unit}, against {baseline}.")
    print(json.dumps({"secs_and_core_secs": times, "load_average": os.getloadavg()[0]}))


class Turns:
    """Makes threads work one at a time, in rotation."""

    def __init__(self, count: int) -> None:
        """Takes the number of threads; number 0 starts."""
        self._order = collections.deque(range(count))
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Waits for the turn of thread `number`."""
        with self._changed:
            self._changed.wait_for(lambda: self._order[0] == number)

    def pass_on(self) -> None:
        """Ends a turn."""
        with self._changed:
            self._order.rotate(-1)
            self._changed.notify_all()

    def leave(self) -> None:
        """Ends the last one."""
        with self._changed:
            self._order.popleft()
            self._changed.notify_all()


def take_turns(trainers: dict[str, Trainer]) -> dict[str, list[Times]]:
    """Returns the times of all epochs but the first two of each."""
    turns = Turns(len(trainers))

    def run(number: int, trainer: Trainer) -> list[Times]:
        turns.wait(number)
        times: list[Times] = []
        began = (0.0, 0.0)

        def end_epoch() -> None:
            nonlocal began
            now = (time.perf_counter(), time.process_time())
            times.append((now[0] - began[0], now[1] - began[1]))
            turns.pass_on()
            turns.wait(number)
            began = (time.perf_counter(), time.process_time())

        try:
            trainer(end_epoch)
        finally:
            turns.leave()
        return times[_TRACING_EPOCHS:]

    with ThreadPoolExecutor(len(trainers)) as threads:
        running = {
            name: threads.submit(run, number, trainer)
            for number, (name, trainer) in enumerate(trainers.items())
        }
        return {name: future.result() for name, future in running.items()}


def train(options: TrainConfig, end_epoch: Callable[[], None]) -> None:
    """Trains with our loop."""
    from shardstream.train.run import train_and_evaluate

    train_and_evaluate(options, callbacks=[calling(end_epoch)])


def fit(options: TrainConfig, inputs: Callable[..., dict[str, Any]], end_epoch: Callable[[], None]) -> None:
    """Trains with `model.fit`, with the same model, optimizer and images."""
    import keras

    from shardstream.train.resolve import make_model, prepare

    setup = prepare(options)
    pictures = [decoded(setup.data, split, setup.image_size) for split in ("train", "validation")]
    steps, _ = make_model(setup)

    class Augmented(keras.Model):
        def call(self, images: Any, training: bool = False) -> Any:
            if training:
                images, _ = steps.augmentation(images, None)
            return steps.model(images, training=training)

    model = Augmented()
    model.model = steps.model
    # As ours on a CPU, where it makes the steps of this model slower. The hint knows "auto" alone.
    no_xla: Any = False
    model.compile(
        steps.model.optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=no_xla,
    )
    num_trained = setup.steps_per_epoch * setup.batch_size
    train_pictures = tuple(array[:num_trained] for array in pictures[0])  # Only complete batches, as in ours.
    model.fit(
        **inputs(train_pictures, pictures[1], setup.batch_size),
        epochs=setup.epochs,
        callbacks=[calling(end_epoch)],
        verbose=0,  # pyright: ignore[reportArgumentType] - The hint knows the words alone.
    )


def decoded(data: Any, split: str, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a split."""
    batches = list(data.eval_batches(split, batch_size=64, image_size=image_size).as_numpy_iterator())
    images, labels, _ = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


def as_arrays(train: tuple[np.ndarray, ...], validation: tuple[np.ndarray, ...], batch_size: int) -> Any:
    """Returns arrays, which `fit` shuffles and gathers itself."""
    return {"x": train[0], "y": train[1], "validation_data": validation, "batch_size": batch_size}


def as_datasets(train: tuple[np.ndarray, ...], validation: tuple[np.ndarray, ...], batch_size: int) -> Any:
    """Returns the same through tf.data."""
    import tensorflow as tf

    dataset = tf.data.Dataset
    shuffled = dataset.from_tensor_slices(train).shuffle(len(train[0]))
    return {
        "x": shuffled.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE),
        "validation_data": dataset.from_tensor_slices(validation)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE),
    }


def calling(end_epoch: Callable[[], None]) -> Any:
    """Returns a Keras callback that calls `end_epoch`."""
    import keras

    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: end_epoch())


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
