"""Measures how fast photos become a dataset, beside TensorFlow Datasets and beside the limit of the machine.

    python scripts/bench_ingest.py PHOTOS [--count 3000] [--rounds 3]

PHOTOS has category folders. They are copied until there are --count photos, each made different by a comment inside
of it, so that none is a duplicate; all have been read once before anything is timed. Each way runs in processes of its
own, in turn, for several rounds; the table has the median. For the others TensorFlow's import and the start of workers
are left out of the time; for ours the start of its workers, about a second, is in it.
"""

import dataclasses
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures how fast photos become a dataset."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    count: int = 3000
    """How many photos to work on."""
    rounds: int = 3
    """How often each way is measured."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes, for the ways that use several."""


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(config.photos, Path(folder) / "photos", config.count)
        for _ in range(config.rounds):
            for name, way in WAYS.items():
                secs = in_a_process(way, photos, Path(folder) / "out", config.workers)
                rates[name].append(config.count / secs)
                print(f"{name}: {rates[name][-1]:,.0f} photos/s", file=sys.stderr, flush=True)
                shutil.rmtree(Path(folder) / "out", ignore_errors=True)
    print_table({name: statistics.median(found) for name, found in rates.items()})
    print(json.dumps(describe(config, rates)))


def make_photos(source: Path, target: Path, count: int) -> Path:
    """Copies the JPEGs of `source` over and over, each with another comment behind its first two bytes."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    for number in range(count):
        path = files[number % len(files)]
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        copy = target / path.relative_to(source).parts[0] / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        copy.write_bytes(data[:2] + segment + data[2:])
    return target


def in_a_process(way: Callable[[Path, Path, int], float], photos: Path, out: Path, workers: int) -> float:
    """Returns the seconds that `way` took, run in a fresh interpreter."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(way, photos, out, workers).result()


def ours_original(photos: Path, out: Path, workers: int) -> float:
    """`build --image-size original`: every photo decoded to the end, its bytes kept."""
    return _ours(photos, out, workers, "original")


def ours_300(photos: Path, out: Path, workers: int) -> float:
    """`build --image-size 300`."""
    return _ours(photos, out, workers, 300)


def _ours(photos: Path, out: Path, workers: int, image_size: int | str) -> float:
    from ingest.build import build_dataset
    from ingest.config import BuildConfig

    config = BuildConfig(images=photos, data=out, image_size=image_size, workers=workers)  # pyright: ignore[reportArgumentType]
    began = time.perf_counter()
    build_dataset(config)
    return time.perf_counter() - began


def limit_decode(photos: Path, out: Path, workers: int) -> float:
    """All cores read and decode, and do nothing else."""
    return _limit(photos, workers, _decode)


def limit_300(photos: Path, out: Path, workers: int) -> float:
    """All cores read, decode, resize to 300x300 and encode, and do nothing else."""
    return _limit(photos, workers, _decode_resize_encode)


def _limit(photos: Path, workers: int, work: Callable[[Path], int]) -> float:
    paths = sorted(photos.rglob("*.jpg"))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        list(executor.map(work, paths[: 4 * workers]))  # The imports.
        began = time.perf_counter()
        list(executor.map(work, paths, chunksize=64))
        return time.perf_counter() - began


def _decode(path: Path) -> int:
    import simplejpeg

    return len(simplejpeg.decode_jpeg(path.read_bytes(), "RGB"))


def _decode_resize_encode(path: Path) -> int:
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)
    rgb = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
    small = cv2.resize(rgb, (300, 300), interpolation=cv2.INTER_AREA)
    return len(simplejpeg.encode_jpeg(small, 95, "RGB", "420", False))


def tfds_copy(photos: Path, out: Path, workers: int) -> float:
    """TFDS's own builder, given paths: it copies the files and looks into none."""
    return _tfds(photos, out, str)


def tfds_checked(photos: Path, out: Path, workers: int) -> float:
    """The same, with every photo decoded by TensorFlow first, so that a broken one is found."""
    import tensorflow as tf

    def check(path: Path) -> str:
        tf.io.decode_jpeg(tf.io.read_file(str(path)), channels=3)
        return str(path)

    return _tfds(photos, out, check)


def _tfds(photos: Path, out: Path, prepare: Callable[[Path], str]) -> float:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.zeros(1)

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            names = sorted(path.name for path in photos.iterdir())
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: object) -> dict:
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for path in sorted(photos.rglob("*.jpg")):
                yield str(path), {"image": prepare(path), "label": path.parent.name}

    builder = Photos(data_dir=str(out))
    began = time.perf_counter()
    builder.download_and_prepare()
    return time.perf_counter() - began


WAYS: dict[str, Callable[[Path, Path, int], float]] = {
    "limit: read and decode": limit_decode,
    "ours, original": ours_original,
    "limit: read, decode, resize, encode": limit_300,
    "ours, 300": ours_300,
    "TFDS, files copied unseen": tfds_copy,
    "TFDS, each decoded first": tfds_checked,
}


def print_table(rates: dict[str, float]) -> None:
    """Prints the median rates, and each as a share of its limit."""
    limits = {"ours, original": "limit: read and decode", "ours, 300": "limit: read, decode, resize, encode"}
    print("| way | photos/s | of its limit | of TFDS with decoding |")
    print("|---|---|---|---|")
    for name, rate in rates.items():
        of_limit = f"{rate / rates[limits[name]]:.2f}" if name in limits else ""
        print(f"| {name} | {rate:,.0f} | {of_limit} | {rate / rates['TFDS, each decoded first']:.1f} |")


def describe(config: BenchConfig, rates: dict[str, list[float]]) -> dict[str, object]:
    """Returns what is needed to read the figures."""
    from importlib.metadata import version

    packages = ("shardstream", "tensorflow", "tensorflow-datasets", "simplejpeg", "opencv-python", "numpy")
    return {
        "photos_per_sec": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "count": config.count,
        "workers": config.workers,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
