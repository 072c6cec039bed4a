"""Compares our models with that of Keras's tutorial, trained on folders of images, on the same held-out images.

    python -m scripts.bench.datasets FOLDER [FOLDER2 ...] [--seeds 1 2 3] [--models tutorial small lite0 auto]

Each folder has a sub-folder for each class. For each seed a dataset is built with a different split: a fifth is held
out for the results, a fifth for choosing epochs. With `--splits-from-folders` the test split is that of the folders,
the same for all seeds, and an image counts with its mean over them. The tutorial's model
(tensorflow.org/tutorials/images/classification: flip, rotation and zoom, three convolutions, dropout, 15 epochs of
Adam, the last one used) gets the same images. Accuracies are over all seeds together, with 95 % Wilson intervals;
differences are paired. With `--results FOLDER` each training leaves a file there, and is not repeated by a later call:
a comparison of hours can be stopped and continued.
"""

import dataclasses
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from shardstream.predict.metrics.intervals import wilson_interval
from shardstream.train.startup import start_tensorflow

# From the tutorial.
_IMAGE_SIZE, _EPOCHS, _BATCH_SIZE = 180, 15, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Compares models on folders of images."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with a sub-folder for each class."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """A split and a training of each model for each of them."""
    models: tuple[str, ...] = ("tutorial", "small", "lite0", "auto")
    """tutorial, or names of our models."""
    keep_together: str = "duplicates"
    """What goes to the same split, as for `shardstream-ingest build`."""
    splits_from_folders: bool = False
    """The folders are train/CLASS and test/CLASS, as for `shardstream-ingest build`."""
    image_size: int = 300
    """Stored height and width in pixels, as for `shardstream-ingest build`."""
    results: Path | None = None
    """A folder for the result of each training; a later call with the same options uses those that it holds."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """Result of one training.

    Attributes:
        correct: bool [num_held_out]: whether each held-out image was classified correctly.
        secs: Time from the dataset to the finished model.
        core_secs: CPU time of that, of all threads. Other work on the machine hardly changes it.
    """

    correct: np.ndarray
    secs: float
    core_secs: float

    @classmethod
    def load(cls, path: Path) -> "Trial":
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["correct"], float(arrays["secs"]), float(arrays["core_secs"]))

    def save(self, path: Path) -> None:
        """Writes a file that `load` reads, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, correct=self.correct, secs=self.secs, core_secs=self.core_secs)
        partial.replace(path)


def main(config: BenchConfig) -> None:
    """Runs all trainings and prints a table and one JSON line."""
    start_tensorflow()
    rows = []
    for folder in config.folders:
        trials: dict[str, list[Trial]] = {model: [] for model in config.models}
        for seed in config.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                results = config.results or Path(scratch) / "results"
                run_seed(config, folder, seed, Path(scratch), results / folder.name)
                for model in config.models:
                    trials[model].append(Trial.load(results / folder.name / f"{model}-{seed}.npz"))
        correct = {model: join_seeds(config, [trial.correct for trial in of]) for model, of in trials.items()}
        rows += summarize(folder.name, correct, trials)
        print_table(rows)
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({"seeds": config.seeds, "rows": rows, "versions": versions}))


def run_seed(config: BenchConfig, folder: Path, seed: int, scratch: Path, results: Path) -> None:
    """Builds a dataset and saves the trial of each model in `results`, unless it is there."""
    import shardstream

    missing = [model for model in config.models if not (results / f"{model}-{seed}.npz").exists()]
    if not missing:
        return
    held_out = {"splits_from_folders": True} if config.splits_from_folders else {"test": 0.2}
    data = shardstream.build_dataset(
        folder,
        scratch / "data",
        seed=seed,
        image_size=config.image_size,
        keep_together=config.keep_together,
        **held_out,
    )
    for model in missing:
        trial = run_trial(data, model, seed, scratch / model)
        trial.save(results / f"{model}-{seed}.npz")
        shutil.rmtree(scratch / model, ignore_errors=True)
        print(
            f"{folder.name}, seed {seed}, {model}: {trial.correct.mean():.4f}, {trial.secs:.0f} s, "
            f"{trial.core_secs:.0f} core s",
            file=sys.stderr,
            flush=True,
        )


def run_trial(data: Any, model: str, seed: int, scratch: Path) -> Trial:
    """Trains a model and classifies the images of the test split."""
    began, cores_began = time.monotonic(), time.process_time()
    trained = train_tutorial(data, seed) if model == "tutorial" else train_ours(data, model, seed, scratch)
    secs, core_secs = time.monotonic() - began, time.process_time() - cores_began
    images, labels = read_split(data, "test", trained.input_shape[1])
    correct = trained.predict(images, verbose=0).argmax(axis=1) == labels
    return Trial(correct, secs, core_secs)


def read_split(data: Any, split: str, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images of a split, uint8 [num_images, size, size, 3], and their labels."""
    parts = [
        (images.numpy(), labels.numpy())
        for images, labels, _ in data.eval_batches(split, batch_size=64, image_size=image_size)
    ]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def train_ours(data: Any, model: str, seed: int, run: Path) -> Any:
    """Returns the best model of a run with default options, without cached features of earlier runs."""
    from shardstream.train.config import TrainConfig
    from shardstream.train.run import train_and_evaluate
    from shardstream.train.runs.saved_model import load_model

    cache = run.with_name(f"{run.name}-cache")
    config = TrainConfig(data_dir=data.info.data_dir, run=run, model=model, seed=seed, cache_dir=cache)
    train_and_evaluate(config)
    return load_model(run)[0]


def train_tutorial(data: Any, seed: int) -> Any:
    """Returns the model of the tutorial, trained on the training split."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    images, labels = read_split(data, "train", _IMAGE_SIZE)
    validation = read_split(data, "validation", _IMAGE_SIZE)
    model = keras.Sequential(
        [
            keras.Input((_IMAGE_SIZE, _IMAGE_SIZE, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.Rescaling(1 / 255),
            *(
                layer
                for filters in (16, 32, 64)
                for layer in (
                    layers.Conv2D(filters, 3, padding="same", activation="relu"),
                    layers.MaxPooling2D(),
                )
            ),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(len(data.class_names)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    quietly: Any = {"verbose": 0}
    model.fit(images, labels, batch_size=_BATCH_SIZE, epochs=_EPOCHS, validation_data=validation, **quietly)
    return model


def join_seeds(config: BenchConfig, correct: list[np.ndarray]) -> np.ndarray:
    """Returns how often each held-out image was classified correctly, float64 [num_images]."""
    return np.mean(correct, axis=0) if config.splits_from_folders else np.concatenate(correct).astype(float)


def summarize(
    name: str, correct: dict[str, np.ndarray], trials: dict[str, list[Trial]]
) -> list[dict[str, Any]]:
    """Returns a row for each model: times are medians, the difference is to the best of the others."""
    rows = []
    for model in correct:
        others = {other: values for other, values in correct.items() if other != model}
        row = {
            "dataset": name,
            "model": model,
            "accuracy": float(correct[model].mean()),
            "interval": wilson_interval(round(correct[model].sum()), len(correct[model])),
            "secs": float(np.median([trial.secs for trial in trials[model]])),
            "core_secs": float(np.median([trial.core_secs for trial in trials[model]])),
        }
        if others:
            best = max(others, key=lambda other: others[other].mean())
            row |= {"beside": best, "difference": paired(correct[model], others[best])}
        rows.append(row)
    return rows


def paired(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of two accuracies on the same images."""
    differences = one - other
    half = 1.959964 * differences.std() / np.sqrt(len(differences))
    return float(differences.mean() - half), float(differences.mean() + half)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows as a Markdown table."""
    print("| set | model | accuracy (95 % interval) | difference to the best of the others | s | core s |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["interval"]
        difference = (
            "{:+.3f} to {:+.3f} ({})".format(*row["difference"], row["beside"]) if "beside" in row else ""
        )
        accuracy = f"{row['accuracy']:.3f} ({low:.3f} to {high:.3f})"
        times = f"{row['secs']:.0f} | {row['core_secs']:.0f}"
        print(f"| {row['dataset']} | {row['model']} | {accuracy} | {difference} | {times} |")


if __name__ == "__main__":
    main(tyro.cli(BenchConfig, description=__doc__))
