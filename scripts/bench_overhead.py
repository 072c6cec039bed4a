"""Measures what an epoch of our loop takes over a bare `model.fit`: meters, history, checkpoints, curves and all.

    python scripts/bench_overhead.py DATA [--image-size 128] [--epochs 8] [--rounds 2]

Both train `small` on the same pictures in memory, with the same batches, and evaluate after each epoch; they take
turns in one process. The time of an epoch is that from the end of the one before to its own end, so that whatever
happens between two epochs counts; the first, which has the tracing in it, is left out.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from train.startup import start_tensorflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures what an epoch of our loop takes over a bare `model.fit`."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    image_size: int | None = None
    """By default the stored size. The shorter an epoch is, the more of it is what our loop does between two of them."""
    batch_size: int = 32
    """Pictures per step."""
    epochs: int = 8
    """Of each run."""
    rounds: int = 2
    """Runs of each."""


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    times: dict[str, list[tuple[float, float]]] = {"model.fit": [], "shardstream": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(config.rounds):
            times["model.fit"] += fit(config)
            times["shardstream"] += train(config, Path(folder) / str(number))
            for name, found in times.items():
                print(f"{name}: {found[-1][0]:.3f} s an epoch", file=sys.stderr, flush=True)
    medians = {
        name: [statistics.median(column) for column in zip(*times[name], strict=True)] for name in times
    }
    print("| | s an epoch | core s an epoch |\n|---|---|---|")
    for name, (secs, core_secs) in medians.items():
        print(f"| {name} | {secs:.3f} | {core_secs:.3f} |")
    more = [
        ours / theirs - 1 for ours, theirs in zip(medians["shardstream"], medians["model.fit"], strict=True)
    ]
    print(f"\nOurs takes {more[0]:+.1%} on the clock and {more[1]:+.1%} of core time.")
    print(json.dumps({"secs_and_core_secs": times, "load_average": os.getloadavg()[0]}))


def make_stopwatch() -> Any:
    """Returns a Keras callback with the times of all epochs but the first."""
    import keras

    class Stopwatch(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[tuple[float, float]] = []

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.ends.append((time.perf_counter(), time.process_time()))

        def epochs(self) -> list[tuple[float, float]]:
            return [
                (after[0] - before[0], after[1] - before[1])
                for before, after in zip(self.ends, self.ends[1:], strict=False)
            ]

    return Stopwatch()


def options(config: BenchConfig, run: Path) -> Any:
    """Returns the options of a run."""
    from train.config import TrainConfig

    return TrainConfig(
        data_dir=config.data_dir,
        run=run,
        image_size=config.image_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        augmentation="none",  # In ours it is before the model, where fit has no place for it.
        cache="memory",
        precision="float32",
    )


def train(config: BenchConfig, run: Path) -> list[tuple[float, float]]:
    """Returns the times of our epochs."""
    from train.run import train_and_evaluate

    stopwatch = make_stopwatch()
    train_and_evaluate(options(config, run), callbacks=[stopwatch])
    return stopwatch.epochs()


def fit(config: BenchConfig) -> list[tuple[float, float]]:
    """Returns the times of the epochs of `model.fit` with the same model and the same batches."""
    from train.input_pipeline import make_eval_batches, make_train_batches
    from train.setup import make_model, make_sources, prepare

    setup = prepare(options(config, Path("fit")))
    train_source, validation_source = make_sources(setup)
    model = make_model(setup)[0].model
    # As ours on a CPU, where it makes the steps of this model slower. The hint knows "auto" alone.
    no_xla: Any = False
    model.compile(
        model.optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=no_xla
    )
    stopwatch = make_stopwatch()
    batch_size = config.batch_size
    model.fit(
        as_dataset(lambda: make_train_batches(train_source, seed=1, epoch=0, batch_size=batch_size)),
        validation_data=as_dataset(lambda: make_eval_batches(validation_source, batch_size=batch_size)),
        epochs=config.epochs,
        callbacks=[stopwatch],
        verbose=0,  # pyright: ignore[reportArgumentType] - The hint knows the words alone.
    )
    return stopwatch.epochs()


def as_dataset(make_batches: Callable[[], Iterator[Any]]) -> Any:
    """Returns batches as what `fit` goes through once for each epoch."""
    import tensorflow as tf

    signature = tuple(map(tf.TensorSpec.from_tensor, next(make_batches())))
    return tf.data.Dataset.from_generator(make_batches, output_signature=signature).prefetch(2)


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
