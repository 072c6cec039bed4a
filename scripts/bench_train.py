"""Trains `small` and the notebook's CNN without its first layer side by side, and prints accuracy and time.

    python scripts/bench_train.py DATA [--seeds 1 2 3]

Both read the same dataset through the same pipeline, in the same loop, at the same image and batch size, and take
turns in one process: for every seed first the one, then the other. The time of an epoch is that of its training
steps, the median over all epochs of all seeds but the first of each run, which has the tracing in it.
"""

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import tyro

from train.startup import start_tensorflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Trains `small` and the notebook's CNN without its first layer side by side."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    image_size: int | None = None
    """By default the stored size."""
    batch_size: int = 32
    """Pictures per step."""
    epochs: int | None = None
    """Of both; by default each model's own, as `shardstream-train` chooses them."""
    seeds: tuple[int, ...] = (1,)
    """A run of each model for each of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A model's figures over all seeds."""

    model: str
    parameters: int
    epochs: int
    accuracies: list[float]
    epoch_secs: float
    total_secs: float


NAMES = {"small": "small", "seed": "notebook's CNN without Dense(1024)"}


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    runs: dict[str, list[tuple[float, int, list[float], float]]] = {"small": [], "seed": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in config.seeds:
            for model in runs:
                runs[model].append(train(config, model, seed, Path(folder)))
                print(f"seed {seed}, {NAMES[model]}: {runs[model][-1][0]:.4f}", file=sys.stderr, flush=True)
    rows = [summarize(config, model, runs[model]) for model in runs]
    print_table(rows)
    print(json.dumps(describe(config, rows)))


def train(config: BenchConfig, model: str, seed: int, folder: Path) -> tuple[float, int, list[float], float]:
    """Returns best accuracy, parameters, the seconds of each epoch, and those of the whole run."""
    import keras

    from train.config import TrainConfig
    from train.run import train_and_evaluate

    class EpochSecs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            secs.append((logs or {})["train_secs"])
            accuracies.append((logs or {})["val_accuracy"])

    secs: list[float] = []
    accuracies: list[float] = []
    options = TrainConfig(
        data_dir=config.data_dir,
        run=folder / f"{model}-{seed}",
        model=model,  # pyright: ignore[reportArgumentType]
        image_size=config.image_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=seed,
    )
    began = time.monotonic()
    with without_first_layer() if model == "seed" else contextlib.nullcontext():
        result = train_and_evaluate(options, callbacks=[EpochSecs()])
    return result.val_accuracy, result.num_parameters, secs, time.monotonic() - began


@contextlib.contextmanager
def without_first_layer() -> Iterator[None]:
    """Builds `seed` without Dense(1024) while it lasts: with it, an epoch would take an hour."""
    import keras

    from train import models

    def build(image_size: int, num_classes: int, seed: int) -> keras.Model:
        whole = original(8, num_classes, seed)
        kept = [type(layer).from_config(layer.get_config()) for layer in whole.layers[1:]]
        return keras.Sequential([keras.Input((image_size, image_size, 3)), *kept], name="seed")

    original = models._build_seed
    with mock.patch.object(models, "_build_seed", build):
        yield


def summarize(config: BenchConfig, model: str, runs: list[tuple[float, int, list[float], float]]) -> Row:
    """Returns the row of a model."""
    return Row(
        model=NAMES[model],
        parameters=runs[0][1],
        epochs=len(runs[0][2]),
        accuracies=[run[0] for run in runs],
        epoch_secs=statistics.median(secs for run in runs for secs in run[2][1:] or run[2]),
        total_secs=statistics.mean(run[3] for run in runs),
    )


def print_table(rows: list[Row]) -> None:
    """Prints the rows as Markdown, ready for docs/benchmarks.md."""
    print("| model | parameters | epochs | validation accuracy | s per epoch | s in all |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        accuracy = f"{statistics.mean(row.accuracies):.4f}"
        if len(row.accuracies) > 1:
            accuracy += f" ({min(row.accuracies):.4f} to {max(row.accuracies):.4f})"
        print(
            f"| {row.model} | {row.parameters:,} | {row.epochs} | {accuracy} "
            f"| {row.epoch_secs:.2f} | {row.total_secs:.0f} |"
        )
    print(
        f"\nAn epoch of {rows[0].model} takes {rows[0].epoch_secs / rows[1].epoch_secs:.2f} of the other's time."
    )


def describe(config: BenchConfig, rows: list[Row]) -> dict[str, object]:
    """Returns all figures with versions and hardware."""
    from ingest.metadata import DatasetInfo
    from train.machine import usable_cores
    from train.runtime import versions

    info = DatasetInfo.load(config.data_dir)
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "seeds": config.seeds,
        "image_size": config.image_size or info.image.size,
        "batch_size": config.batch_size,
        "num_train": info.split("train").num_examples,
        "num_validation": info.split("validation").num_examples,
        "dataset_fingerprint": info.fingerprint,
        "cores": usable_cores(),
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "versions": versions(),
    }


def processor() -> str:
    """Returns the processor's name as Linux gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
