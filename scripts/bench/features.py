"""Compares the feature pass with Keras alone, and times the fit of a head to many examples.

    python -m scripts.bench.features DATA [--split train] [--rounds 5] [--heads 3000 100000]

The pass reads, checks and decodes each image of the split, computes its features by lite0 and its thumbnail. Keras gets
the same images decoded, in memory, in batches of the same size, and runs `model.predict` with the same backbone. They
alternate in one process, and the ratio is the median over the rounds. Heads are fitted to drawn features: a mean for
each of ten classes, and noise around it.
"""

import dataclasses
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from shardstream.train.startup import start_tensorflow

# Of the rounds; more would only take longer.
MOST_IMAGES = 2048
NUM_CLASSES = 10
# Of the class means, where that of the noise is 1: a classifier errs now and then.
MEANS_STDDEV = 0.06


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures the feature pass against Keras alone, and the fit of a head."""

    data: tyro.conf.Positional[Path]
    """A dataset folder."""
    split: str = "train"
    """The split whose features are computed."""
    rounds: int = 5
    """How often the two take turns."""
    heads: tuple[int, ...] = ()
    """Numbers of drawn examples to fit a head to."""


# Wall-clock and CPU seconds.
Times = tuple[float, float]


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints tables and one JSON line."""
    start_tensorflow()
    num_images, times = take_turns(config)
    print("| | images/s | core ms an image |\n|---|---|---|")
    for name, found in times.items():
        secs, core_secs = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {num_images / secs:,.0f} | {1000 * core_secs / num_images:.3f} |")
    ratio, core_ratio = ratios(times)
    print(f"\nThe pass at {ratio:.2f} of the rate of Keras, {core_ratio:.2f} by core time.")
    rows = [fit_drawn(count) for count in sorted(config.heads)]
    if rows:
        print(
            "\n| examples | s of the fit | core s | accuracy by cross-validation | peak MB |\n|---|---|---|---|---|"
        )
    for row in rows:
        print(
            "| {examples:,} | {secs:.1f} | {core_secs:.1f} | {accuracy:.3f} | {peak_mb:,.0f} |".format(**row)
        )
    results = {"ratio": ratio, "core_ratio": core_ratio, "times": times, "heads": rows}
    print(json.dumps(results | {"load_average": os.getloadavg()[0]}))


def take_turns(config: BenchConfig) -> tuple[int, dict[str, list[Times]]]:
    """Returns the number of images, and the times of each round; the first, which includes tracing, is left out."""
    from shardstream.train.data.dataset import load_dataset
    from shardstream.train.engine.features import BATCH_SIZE, extract_features, make_extractor, named_batches
    from shardstream.train.models.build import build_pretrained_backbone
    from shardstream.train.models.registry import AUTO_BACKBONE, BACKBONES

    data = load_dataset(config.data)
    image_size = data.image_size or BACKBONES[AUTO_BACKBONE]
    num_images = data.splits[config.split].num_examples
    if num_images > MOST_IMAGES:
        raise SystemExit(f"{config.split} has {num_images:,} images, and {MOST_IMAGES:,} fit into the memory")
    backbone: Any = build_pretrained_backbone(AUTO_BACKBONE, image_size=image_size)
    extract, numbers = make_extractor(backbone), np.arange(num_images)

    def batches() -> Any:
        return named_batches(data, config.split, numbers, image_size=image_size)

    images = np.concatenate([batch for batch, *_ in batches()])
    acts: dict[str, Callable[[], object]] = {
        "model.predict": lambda: backbone.predict(
            images,
            batch_size=BATCH_SIZE,
            verbose=0,  # pyright: ignore[reportArgumentType] - The hint knows the words alone.
        ),
        "the pass": lambda: extract_features(batches(), extract, num_examples=num_images),
    }
    times: dict[str, list[Times]] = {name: [] for name in acts}
    for number in range(config.rounds + 1):
        for name, act in acts.items():
            found = timed(act)
            if number:
                times[name].append(found)
    return num_images, times


def timed(act: Callable[[], object]) -> Times:
    """Returns the wall-clock and CPU seconds of a call."""
    began, core_began = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - began, time.process_time() - core_began


def ratios(times: dict[str, list[Times]]) -> tuple[float, float]:
    """Returns the median fraction of the rate of Keras that the pass reaches: by wall-clock and by CPU time."""
    pairs = zip(times["model.predict"], times["the pass"], strict=True)
    shares = [(alone[0] / whole[0], alone[1] / whole[1]) for alone, whole in pairs]
    ratio, core_ratio = (round(statistics.median(column), 3) for column in zip(*shares, strict=True))
    return ratio, core_ratio


def fit_drawn(num_examples: int) -> dict[str, float]:
    """Fits a head to drawn features float16 [num_examples, 2048], and returns the times and the peak memory."""
    from shardstream.train.engine.cross_validation import choose_head

    generator = np.random.default_rng(1)
    labels = generator.integers(0, NUM_CLASSES, num_examples)
    means = generator.normal(0, MEANS_STDDEV, (NUM_CLASSES, 2048)).astype(np.float32)
    features = np.empty((num_examples, 2048), np.float16)
    for rows in np.array_split(np.arange(num_examples), max(1, num_examples // 1000)):
        noise = generator.standard_normal((len(rows), 2048), np.float32)
        features[rows] = noise + means[labels[rows]]
    found: list[float] = []
    secs, core_secs = timed(
        lambda: found.append(choose_head(features, labels, num_classes=NUM_CLASSES, seed=1)[1].accuracy)
    )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        "examples": num_examples,
        "secs": secs,
        "core_secs": core_secs,
        "accuracy": found[0],
        "peak_mb": peak_mb,
    }


if __name__ == "__main__":
    main(tyro.cli(BenchConfig, description=__doc__))
