"""Compares prediction with Keras alone: the complete pass of `shardstream-predict`, and `model.predict` on a tensor.

    python -m scripts.bench.predict RUN DATA [--records 100000] [--split train] [--rounds 5]

The pass includes everything done per record: it is read, checked, decoded, predicted, measured, kept in columns and
written to Parquet and CSV. Keras gets the same images decoded, in memory, in batches of the same size, and does
nothing else. They alternate in one process, and the ratio is the median over the rounds. With --records the records
of the split are repeated to make a dataset of that size; after the rounds a tenth of them is predicted, then all, and
then the complete report is made, each with the peak memory of the process until then.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from shardstream.ingest.dataset.index import FILENAME, index_rows
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo
from shardstream.ingest.dataset.records import CHECKSUM_BYTES, frame, read_records
from shardstream.train.startup import start_tensorflow

if TYPE_CHECKING:
    from shardstream.predict.compared_models import ComparedModel

# Of the rounds; more would only take longer.
MOST_PICTURES = 4096
RECORDS_PER_SHARD = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures prediction against Keras alone."""

    run: tyro.conf.Positional[Path]
    """A run folder."""
    data: tyro.conf.Positional[Path]
    """A dataset folder."""
    split: str = "train"
    """Whose records are predicted."""
    records: int | None = None
    """Predict so many, the split's over and over, and make the whole report of them."""
    rounds: int = 5
    """How often the two take turns."""


# Wall-clock and CPU seconds.
Times = tuple[float, float]


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    info = DatasetInfo.load(config.data)
    num_pictures = min(info.split(config.split).num_examples, MOST_PICTURES)
    times = take_turns(config, info, num_pictures)
    results = {"pictures": num_pictures, "times": times} | ratios(times)
    print("| | pictures/s | core ms a picture |\n|---|---|---|")
    for name, found in times.items():
        secs, core_secs = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {num_pictures / secs:,.0f} | {1000 * core_secs / num_pictures:.3f} |")
    print(
        f"\nThe pass at {results['ratio']:.2f} of the rate of Keras, {results['core_ratio']:.2f} by core time."
    )
    if config.records is not None:
        with tempfile.TemporaryDirectory() as folder:
            results["peaks_mb"] = predict_large(config, info, config.records, Path(folder))
    print(json.dumps(results | {"load_average": os.getloadavg()[0]}))


def take_turns(config: BenchConfig, info: DatasetInfo, num_pictures: int) -> dict[str, list[Times]]:
    """Returns the times of each, round by round, without the first round, which includes tracing."""
    from shardstream.predict.compared_models import load_compared_models
    from shardstream.predict.inference.classifier import BATCH_SIZE
    from shardstream.predict.inference.records import read_batches
    from shardstream.train.runs.saved_model import load_model

    model, seen = load_model(config.run)
    positions = np.arange(num_pictures)
    batches = read_batches(
        info, config.split, positions, image_size=seen.image_size, resize=seen.resize, batch_size=BATCH_SIZE
    )
    images = np.concatenate([batch.images for batch in batches])
    (contender,) = load_compared_models([config.run], info)
    acts: dict[str, Callable[[], object]] = {
        "model.predict": lambda: model.predict(
            images,
            batch_size=BATCH_SIZE,
            verbose=0,  # pyright: ignore[reportArgumentType] - The hint knows the words alone.
        ),
        "the pass": lambda: sweep(contender, info, config.split, num_pictures),
    }
    times: dict[str, list[Times]] = {name: [] for name in acts}
    for number in range(config.rounds + 1):
        for name, act in acts.items():
            began, core_began = time.perf_counter(), time.process_time()
            act()
            if number:
                times[name].append((time.perf_counter() - began, time.process_time() - core_began))
    return times


def sweep(contender: "ComparedModel", info: DatasetInfo, split: str, num_pictures: int) -> None:
    """Predicts the first records of a split as `shardstream-predict` does."""
    from shardstream.predict.compared_models import ModelComparison
    from shardstream.predict.inference.predict_loop import predict_records
    from shardstream.predict.output.prediction_files import predictions_files

    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "predictions.parquet"), Path(folder, "predictions.csv")
        with predictions_files(*paths, info.class_names) as files:
            panel = ModelComparison([], num_pictures, files)
            positions = np.arange(num_pictures)
            predict_records(contender, info, split, positions, writer=panel, on_progress=lambda _: None)


def ratios(times: dict[str, list[Times]]) -> dict[str, float]:
    """Returns the median fraction of Keras' rate that the pass reaches over the rounds: by wall-clock and CPU time."""
    pairs = zip(times["model.predict"], times["the pass"], strict=True)
    shares = [(alone[0] / whole[0], alone[1] / whole[1]) for alone, whole in pairs]
    ratio, core_ratio = (statistics.median(column) for column in zip(*shares, strict=True))
    return {"ratio": round(ratio, 3), "core_ratio": round(core_ratio, 3)}


def predict_large(config: BenchConfig, info: DatasetInfo, num_records: int, folder: Path) -> list[float]:
    """Predicts many records, then makes the complete report, and returns the peak memory after each."""
    from shardstream.predict.compared_models import load_compared_models
    from shardstream.predict.inference.selection import select_all
    from shardstream.predict.metrics.gate import Limits
    from shardstream.predict.report import build_report

    large = write_over(info, config.split, num_records, folder / "data")
    (contender,) = load_compared_models([config.run], large)
    peaks = [peak_mb()]
    print("\n| | s | peak MB |\n|---|---|---|")
    print(f"| before | | {peaks[0]:,.0f} |")

    def report(act: Callable[[], object], what: str) -> None:
        began = time.perf_counter()
        act()
        peaks.append(peak_mb())
        print(f"| {what} | {time.perf_counter() - began:.1f} | {peaks[-1]:,.0f} |", flush=True)

    for count in (num_records // 10, num_records):
        report(
            lambda count=count: sweep(contender, large, config.split, count),
            f"the pass over {count:,} records",
        )
    report(
        lambda: build_report(
            config.run,
            large,
            select_all(config.split, num_records),
            compare=(),
            sampling="uniform",
            out=folder / "report",
            gallery_size=200,
            limits=Limits(),
            seed=0,
            lang="en",
            command="",
            on_progress=lambda _: None,
        ),
        f"the whole report of {num_records:,} records",
    )
    return peaks


def write_over(info: DatasetInfo, split_name: str, count: int, folder: Path) -> DatasetInfo:
    """Writes the records of a split repeatedly, up to the requested number."""
    folder.mkdir()
    split = info.split(split_name)
    framed = []
    for shard in split.shards:
        with (info.data_dir / shard.filename).open("rb") as file:
            framed += [frame(record.payload) for record in read_records(file)]
    shards, rows = [], []
    for start in range(0, count, RECORDS_PER_SHARD):
        records = [framed[i % len(framed)] for i in range(start, min(start + RECORDS_PER_SHARD, count))]
        starts = [0, *itertools.accumulate(map(len, records))]
        path = folder / f"over-{start}.tfrecord"
        path.write_bytes(content := b"".join(records))
        shards.append(
            ShardInfo(
                filename=path.name,
                num_examples=len(records),
                num_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
        rows.append(index_rows(starts[:-1], [record[-CHECKSUM_BYTES:] for record in records]))
    np.save(folder / FILENAME, np.concatenate(rows))
    large = dataclasses.replace(split, shards=tuple(shards))
    return dataclasses.replace(info, data_dir=folder, splits={split_name: large})


def peak_mb() -> float:
    """Returns the peak memory of the process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
