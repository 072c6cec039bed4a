"""Measures the rate from a dataset to training batches, compared with other libraries and the limits of the machine.

    python -m scripts.bench.input_pipeline PHOTOS [--count 3000] [--rounds 2] [--peers FOLDER] [--ways ours limit]

PHOTOS has category folders. Their JPEGs are copied until there are --count, rotated and mirrored in up to eight ways,
as in scripts/bench/ingest.py. `shardstream-ingest build --image-size 300` makes our dataset of them, and each peer's
format is made of the same stored JPEGs, so that all decode the same bytes; only FFCV re-encodes them, at the same
quality.
Each way is a program in scripts/bench/peers/, run in a separate process for some epochs; the ways alternate for several
rounds, and the table has the medians: of the first epochs, and of all later ones. Batches have 32 images in uint8,
except for Keras's `image_dataset_from_directory`, which supports only float32. Timed is an epoch from requesting its
batches to the last one, with all imports done and TensorFlow started; worker processes start in the first epoch. All
files are in the page cache. Peers that let the user choose the decoder get simplejpeg, which is faster than the decoder
of their own examples.

The environments of the peers are created in --peers with pip, once. A peer that cannot be installed or fails is a row
of the table with the reason.
"""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from scripts.bench.ingest import make_photos
from scripts.bench.peers.environments import PINS, InstallError, python_of
from shardstream.ingest.commands.build import build_dataset
from shardstream.ingest.commands.config import BuildConfig
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, read_records

PROGRAMS = Path(__file__).with_name("peers")
SIZE = 300
# A peer that hangs must not block the others.
MOST_SECS = 900


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures how fast a dataset becomes batches to train on."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    count: int = 3000
    """How many photos to work on."""
    epochs: int = 3
    """Of each run of a way; the first is a figure of its own."""
    rounds: int = 2
    """How often each way is run."""
    workers: int = len(os.sched_getaffinity(0))
    """Threads or processes, for the ways that are told."""
    ways: tuple[str, ...] = ()
    """Measure only the ways whose name has one of these in it, such as: limit ours."""
    peers: Path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardstream-peers"
    """Where the environments of the peers are, or are made: 11 GB."""
    inputs: Path | None = None
    """Where photos and datasets are, or are made and kept; by default a folder that goes away at the end."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A row of the table.

    name: Name of the row.
    program: The file in bench_peers/ and its own options.
    environment: One of `PINS`; empty for that of this project.
    own: The name of its dataset, which ways may share.
    """

    name: str
    program: tuple[str, ...]
    environment: str = ""
    own: str = "none"


DECODE, COPY = "limit: libjpeg-turbo, all cores", "limit: copying batches, one core"
KERAS = "Keras image_dataset_from_directory, originals"
WAYS = (
    Way(DECODE, ("read_limit.py", "--work", "decode")),
    Way(COPY, ("read_limit.py", "--work", "copy")),
    Way("ours, --cache none", ("read_shardstream.py", "--cache", "none")),
    Way("ours, --cache memory", ("read_shardstream.py", "--cache", "memory")),
    Way("ours, --cache disk", ("read_shardstream.py", "--cache", "disk")),
    Way(KERAS, ("read_keras.py", "--photos", "originals")),
    Way("Keras image_dataset_from_directory, 300x300", ("read_keras.py", "--photos", "files")),
    Way("TFDS as_dataset", ("read_tfds.py", "--no-autocache")),
    Way("TFDS as_dataset, cached as it does under 250 MB", ("read_tfds.py", "--autocache")),
    Way("FFCV, JPEG", ("read_ffcv.py", "--write-mode", "jpg"), "ffcv", "ffcv-jpg"),
    Way("FFCV, raw", ("read_ffcv.py", "--write-mode", "raw"), "ffcv", "ffcv-raw"),
    Way("DALI on the CPU", ("read_dali.py",), "dali"),
    Way("Grain and ArrayRecord, threads", ("read_grain.py", "--parallel", "threads"), "grain", "grain"),
    Way("Grain and ArrayRecord, processes", ("read_grain.py", "--parallel", "processes"), "grain", "grain"),
    Way("WebDataset", ("read_webdataset.py",), "webdataset", "webdataset"),
    Way("litdata", ("read_litdata.py",), "litdata", "litdata"),
    Way("MosaicML Streaming", ("read_streaming.py",), "streaming", "streaming"),
)


class Results:
    """Results of the runs of a way.

    Attributes:
        first: Images per second and core ms per image of the first epoch of each run.
        later: The same for all other epochs.
        dtype: Dtype of the images in a batch.
        failure: Why there are no results; empty if there are.
    """

    def __init__(self) -> None:
        """Starts without results."""
        self.first: list[tuple[float, float]] = []
        self.later: list[tuple[float, float]] = []
        self.dtype = ""
        self.failure = ""

    def add(self, found: Mapping[str, Any]) -> None:
        """Adds the output of a program."""
        rates = [
            (epoch["pictures"] / epoch["secs"], 1000 * epoch["core_secs"] / epoch["pictures"])
            for epoch in found["epochs"]
        ]
        self.first.append(rates[0])
        self.later += rates[1:]
        self.dtype = found["dtype"]

    def rate(self, which: str) -> float | None:
        """Returns the median images per second of the "first" or the "later" epochs."""
        rates = getattr(self, which)
        return statistics.median(rate for rate, _ in rates) if rates else None

    def core_ms(self, which: str) -> float | None:
        """Returns the median core ms per image of these epochs."""
        rates = getattr(self, which)
        return statistics.median(core_ms for _, core_ms in rates) if rates else None


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    ways = [way for way in WAYS if not config.ways or any(part in way.name for part in config.ways)]
    if not ways:
        sys.exit(f"--ways {' '.join(config.ways)}: no way has that in its name")
    results = {way.name: Results() for way in ways}
    versions: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        inputs = config.inputs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_inputs(config, inputs)
        for _ in range(config.rounds):
            for way in ways:
                result = results[way.name]
                if result.failure:
                    continue
                try:
                    found = run(way, inputs, config)
                except (InstallError, RunError) as error:
                    result.failure = str(error)
                    print(f"{way.name}: {error}", file=sys.stderr, flush=True)
                    continue
                result.add(found)
                versions |= found["versions"]
                rates = ", ".join(f"{epoch['pictures'] / epoch['secs']:,.0f}" for epoch in found["epochs"])
                print(f"{way.name}: {rates} img/s", file=sys.stderr, flush=True)
        num_bytes = sum(path.stat().st_size for path in (inputs / "files").rglob("*.jpg"))
    print_table(config, num_bytes, results)
    print(json.dumps(describe(config, num_bytes, results, versions), ensure_ascii=False))


def make_inputs(config: BenchConfig, inputs: Path) -> None:
    """Creates the photos, our dataset of them, and its images as files, unless they exist."""
    if (inputs / "complete").is_file():
        if (inputs / "complete").read_text() != str(config.count):
            sys.exit(f"{inputs}: was made with another --count; name another folder")
        return
    make_photos(config.photos, inputs / "originals", config.count)
    build_dataset(
        BuildConfig(
            images=inputs / "originals",
            data=inputs / "data",
            image_size=SIZE,
            validation=0,
            workers=config.workers,
        )
    )
    write_pictures(DatasetInfo.load(inputs / "data"), inputs / "files")
    (inputs / "complete").write_text(str(config.count))
    os.sync()


def write_pictures(info: DatasetInfo, folder: Path) -> None:
    """Writes the images of a dataset as files in category folders."""
    for number, name in enumerate(info.class_names):
        (folder / f"{number}-{name}").mkdir(parents=True)
    folders = sorted(folder.iterdir())
    count = 0
    for shard in info.shards.values():
        with (info.data_dir / shard.filename).open("rb") as file:
            for record in read_records(file):
                example = decode_example(record.payload)
                label, image = example["label"], example["image"]
                (folders[int(label)] / f"{count}.jpg").write_bytes(image)  # pyright: ignore[reportArgumentType]
                count += 1


class RunError(Exception):
    """A program failed; the message is the reason in one line."""


def run(way: Way, inputs: Path, config: BenchConfig) -> dict[str, Any]:
    """Runs a way and returns its output.

    Raises:
        InstallError: Its environment cannot be created.
        RunError: It failed or hung.
    """
    python = python_of(way.environment, config.peers) if way.environment else sys.executable
    program, *options = way.program
    own = inputs / "peers" / way.own
    own.parent.mkdir(exist_ok=True)
    command = [python, str(PROGRAMS / program), str(inputs), str(own), *options]
    command += ["--workers", str(config.workers), "--epochs", str(config.epochs)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=MOST_SECS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RunError(f"failed: not done after {MOST_SECS} s") from None
            raise
    if process.returncode:
        lines = [line for line in errors.splitlines() if line.strip()] or ["no reason given"]
        raise RunError(f"failed: {lines[-1].strip()}")
    return json.loads(output.splitlines()[-1])


def print_table(config: BenchConfig, num_bytes: int, results: Mapping[str, Results]) -> None:
    """Prints the medians as Markdown, and their ratios to the limits and to Keras."""
    print(
        f"{config.count:,} photos at {SIZE}x{SIZE} of {num_bytes / config.count / 1e3:.0f} kB, batches of 32, "
        f"{config.workers} workers, {config.rounds} runs of {config.epochs} epochs; img/s (core ms a picture)\n"
    )
    columns = (
        "way",
        "first epoch",
        "later epochs",
        "of decoding",
        "of copying",
        "of Keras, first",
        "later",
        "dtype",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name, result in results.items():
        if result.failure:
            cells = [name, result.failure.replace("|", "/"), *[""] * (len(columns) - 2)]
        else:
            cells = [
                name,
                *(cell(result, which) for which in ("first", "later")),
                ratio(results, name, "first", DECODE, "later"),
                ratio(results, name, "later", COPY, "later"),
                ratio(results, name, "first", KERAS, "first"),
                ratio(results, name, "later", KERAS, "later"),
                result.dtype,
            ]
        print(f"| {' | '.join(cells)} |")


def cell(result: Results, which: str) -> str:
    """Returns rate and core ms as text for the table; empty if there were no such epochs."""
    rate, core_ms = result.rate(which), result.core_ms(which)
    return "" if rate is None else f"{rate:,.0f} ({core_ms:.2f})"


def ratio(results: Mapping[str, Results], name: str, which: str, other: str, other_which: str) -> str:
    """Returns the rate of a way divided by that of another; empty if either was not measured."""
    rate = results[name].rate(which)
    base = results[other].rate(other_which) if other in results else None
    return "" if rate is None or base is None else f"{rate / base:.2f}"


def describe(
    config: BenchConfig, num_bytes: int, results: Mapping[str, Results], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the conditions of the measurement."""

    def rates(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(round(rate, 1), round(core_ms, 3)) for rate, core_ms in pairs]

    return {
        "rates_and_core_ms": {
            name: {"failure": result.failure}
            if result.failure
            else {"first": rates(result.first), "later": rates(result.later), "dtype": result.dtype}
            for name, result in results.items()
        },
        "count": config.count,
        "bytes": num_bytes,
        "epochs": config.epochs,
        "workers": config.workers,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "pinned": PINS,
        "versions": versions,
    }


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
