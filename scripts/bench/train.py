"""Trains `small` and the notebook's CNN without its first layer side by side, and prints accuracy and time.

    python -m scripts.bench.train DATA [DATA2 ...] [--seeds 1 2 3]

Both read the same dataset through the same pipeline, in the same loop, at the same image size, and alternate in one
process, for every dataset and seed. The time of an epoch is that of its training steps, the median over all epochs of
all runs but the first of each, which includes tracing; CPU time is given as well, as it varies less if the machine has
other work. The accuracy is that of the epoch with the lowest validation loss, on the validation split, and on the split
`test` if there is one, which was not used for any choice.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import tyro

from shardstream.train.startup import start_tensorflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Trains `small` and the notebook's CNN without its first layer side by side."""

    data_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Dataset folders, for example of the same photos with other seeds of the split."""
    image_size: int | None = None
    """By default the stored size."""
    batch_size: int | None = None
    """Pictures per step of both; by default each model's own, as `shardstream-train` chooses it."""
    epochs: int | None = None
    """Of both; by default each model's own, as `shardstream-train` chooses them."""
    seeds: tuple[int, ...] = (1,)
    """A run of each model for each of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        accuracy: Validation accuracy of the best epoch.
        test_accuracy: Accuracy on the split `test`; None without one.
        parameters: Number of parameters of the model.
        best_epoch: The epoch with the lowest validation loss.
        secs: Training time of each epoch.
        core_secs: CPU time of each epoch, including validation and saving.
        total_secs: Time of the complete call.
    """

    accuracy: float
    test_accuracy: float | None
    parameters: int
    best_epoch: int
    secs: list[float]
    core_secs: list[float]
    total_secs: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Results of a model over all datasets and seeds; lists in their order."""

    model: str
    parameters: int
    epochs: int
    best_epochs: list[int]
    accuracies: list[float]
    test_accuracies: list[float]
    epoch_secs: float
    epoch_core_secs: float
    total_secs: float


NAMES = {"small": "small", "notebook": "notebook's CNN without Dense(1024)"}


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    runs: dict[str, list[Run]] = {"small": [], "notebook": []}
    with tempfile.TemporaryDirectory() as folder:
        for number, (data_dir, seed) in enumerate(itertools.product(config.data_dirs, config.seeds)):
            for model in runs:
                run = train(config, data_dir, model, seed, Path(folder) / f"{model}-{number}")
                runs[model].append(run)
                figures = f"{run.accuracy:.4f}, best epoch {run.best_epoch}, {sum(run.core_secs):.0f} core s"
                print(f"{data_dir}, seed {seed}, {NAMES[model]}: {figures}", file=sys.stderr, flush=True)
    rows = [summarize(model, runs[model]) for model in runs]
    print_table(rows)
    print(json.dumps(describe(config, rows)))


def train(config: BenchConfig, data_dir: Path, model: str, seed: int, folder: Path) -> Run:
    """Trains one model into the run folder `folder`."""
    import keras

    from shardstream.train.config import TrainConfig
    from shardstream.train.run import train_and_evaluate

    class Epochs(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begun.append(time.process_time())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            secs.append(logs["train_secs"])

    secs: list[float] = []
    begun: list[float] = []
    options = TrainConfig(
        data_dir=data_dir,
        run=folder,
        model=model,
        image_size=config.image_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=seed,
    )
    began = time.monotonic()
    with without_first_layer() if model == "notebook" else contextlib.nullcontext():
        result = train_and_evaluate(options, callbacks=[Epochs()])
    total_secs = time.monotonic() - began
    ends = [*begun[1:], time.process_time()]
    return Run(
        accuracy=result.val_accuracy,
        test_accuracy=accuracy_on_test(folder, data_dir),
        parameters=result.num_parameters,
        best_epoch=result.best_epoch,
        secs=secs,
        core_secs=[end - begin for begin, end in zip(begun, ends, strict=True)],
        total_secs=total_secs,
    )


def accuracy_on_test(folder: Path, data_dir: Path) -> float | None:
    """Returns the accuracy of the best model on the split `test`, as the saved file predicts, or None without one."""
    import numpy as np

    from shardstream.train.data.dataset import load_dataset
    from shardstream.train.runs.saved_model import load_model

    data = load_dataset(data_dir)
    if "test" not in data.splits:
        return None
    model, info = load_model(folder)
    right: list[bool] = []
    for images, labels, _ in data.eval_batches("test", batch_size=32, image_size=info.image_size):
        right += (np.argmax(model(images, training=False), axis=1) == labels.numpy()).tolist()
    return statistics.mean(right)


@contextlib.contextmanager
def without_first_layer() -> Iterator[None]:
    """Temporarily builds `notebook` without Dense(1024): with it, an epoch would take an hour."""
    import keras

    from shardstream.train.models import build as models

    def build(image_size: int | None, num_classes: int, seed: int) -> keras.Model:
        whole = original(8, num_classes, seed)
        kept = [type(layer).from_config(layer.get_config()) for layer in whole.layers[1:]]
        return keras.Sequential([keras.Input((image_size, image_size, 3)), *kept], name="notebook")

    original = models._build_notebook
    with mock.patch.object(models, "_build_notebook", build):
        yield


def summarize(model: str, runs: list[Run]) -> Row:
    """Returns the row of a model."""
    return Row(
        model=NAMES[model],
        parameters=runs[0].parameters,
        epochs=len(runs[0].secs),
        best_epochs=[run.best_epoch for run in runs],
        accuracies=[run.accuracy for run in runs],
        test_accuracies=[run.test_accuracy for run in runs if run.test_accuracy is not None],
        epoch_secs=statistics.median(secs for run in runs for secs in run.secs[1:] or run.secs),
        epoch_core_secs=statistics.median(
            secs for run in runs for secs in run.core_secs[1:] or run.core_secs
        ),
        total_secs=statistics.mean(run.total_secs for run in runs),
    )


def print_table(rows: list[Row]) -> None:
    """Prints the rows as Markdown, ready for docs/benchmarks.md."""
    print(
        "| model | parameters | epochs | best epoch | validation accuracy | test accuracy | s per epoch "
        "| core s per epoch | s in all |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.model} | {row.parameters:,} | {row.epochs} | {statistics.mean(row.best_epochs):.0f} "
            f"| {spread(row.accuracies)} | {spread(row.test_accuracies)} | {row.epoch_secs:.2f} "
            f"| {row.epoch_core_secs:.2f} | {row.total_secs:.0f} |"
        )
    ours, theirs = rows
    print(
        f"\nAn epoch of {ours.model} takes {ours.epoch_secs / theirs.epoch_secs:.2f} of the other's time, ",
        end="",
    )
    print(f"{ours.epoch_core_secs / theirs.epoch_core_secs:.2f} of its processor time.")
    whole = ours.epochs * ours.epoch_core_secs / theirs.epoch_core_secs
    best = statistics.mean(theirs.best_epochs)
    print(
        f"All {ours.epochs} take the processor time of {whole:.1f} epochs of the other, which was at its best after "
        f"{best:.1f} and trained {theirs.epochs}."
    )


def spread(accuracies: list[float]) -> str:
    """Returns mean, lowest and highest."""
    if not accuracies:
        return ""
    mean = f"{statistics.mean(accuracies):.4f}"
    return f"{mean} ({min(accuracies):.4f} to {max(accuracies):.4f})" if len(accuracies) > 1 else mean


def describe(config: BenchConfig, rows: list[Row]) -> dict[str, object]:
    """Returns all results with versions and hardware."""
    from shardstream.ingest.common.cpu_limits import usable_cores
    from shardstream.ingest.dataset.metadata import DatasetInfo
    from shardstream.train.distributed.strategy import versions

    datasets = [DatasetInfo.load(data_dir) for data_dir in config.data_dirs]
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "seeds": config.seeds,
        "image_size": config.image_size or datasets[0].image.size,
        "batch_size": config.batch_size,
        "num_examples": [
            {name: split.num_examples for name, split in info.splits.items()} for info in datasets
        ],
        "dataset_fingerprints": [info.fingerprint for info in datasets],
        "cores": usable_cores(),
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "versions": versions(),
    }


def processor() -> str:
    """Returns the CPU name reported by Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
