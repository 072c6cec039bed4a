"""Opens a dataset of a hundred million records without its shards: only index, manifest and metadata.

    python -m scripts.bench.hundred_million [--num-records 100000000] [--num-shards 32000] [--folder FOLDER]

The files are generated first, 9 GB for a hundred million, with random numbers and hashes. Then separate processes plan
an epoch of one of ten workers, as `train_batches` does before it builds a graph, and run `shardstream-ingest info`.
Memory is the peak resident size reported by the kernel, libraries included.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import open_index_writer
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import METADATA_KEY, manifest_schema
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.parquet_files import make_writer
from shardstream.ingest.dataset.tfds_files import write_tfds_files
from shardstream.ingest.dataset.validation import shard_filename
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings

CLASS_NAMES = tuple(f"class{number:03d}" for number in range(1000))
RECORD_BYTES = 41_000
ROWS_PER_GROUP = 65_536
REJECTED_EVERY = 1000

# The kernel's peak for children includes the memory before exec, which must not count here.
PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
"""
PLAN = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from shardstream.train.data.folder import load_info, open_split_index
from shardstream.train.data.sampling import BatchSlice, EpochSampler
info = load_info(Path(sys.argv[1]))
index = open_split_index(info, "train")
sampler = EpochSampler.make(index.num_examples, num_bytes=index.num_bytes, batch_size=1280, seed=1)
window = next(sampler.windows(part=BatchSlice(3, 10)))
reads = index.plan_reads(window.positions.reshape(-1), 1 << 20)
secs = time.perf_counter() - began
assert "tensorflow" not in sys.modules
print(secs, time.process_time(), peak(), len(reads.shards), window.positions.size)
"""
INFO = """
import sys, time
began = time.perf_counter()
from shardstream.ingest.__main__ import main
main(["info", sys.argv[1], "--json"])
print(time.perf_counter() - began, time.process_time(), peak())
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HundredMillionConfig:
    """Opens a dataset of a hundred million records without its records."""

    num_records: int = 100_000_000
    """How many records there are."""
    num_shards: int = 32_000
    """How many shards they are in."""
    folder: Path | None = None
    """Where the dataset lies meanwhile; by default the system's temporary folder."""


def main(config: HundredMillionConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        data = Path(folder) / "photos"
        began = time.perf_counter()
        info = make_dataset(data, config.num_records, config.num_shards)
        print(f"made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        sizes = {path.name: path.stat().st_size for path in data.iterdir()}
        plan = run(PEAK + PLAN, data).split()
        printed, measured = run(PEAK + INFO, data).splitlines()
    if json.loads(printed)["fingerprint"] != info.fingerprint:
        sys.exit("info says something else than was made")
    secs, core_secs, num_bytes, num_requests, num_read = map(float, plan)
    info_secs, info_core_secs, info_bytes = map(float, measured.split())
    print(f"{num_read:,.0f} records of the first window are read with {num_requests:,.0f} requests")
    print("| | s | core s | peak MB |\n|---|---|---|---|")
    print(
        f"| opened, epoch of one of ten workers planned | {secs:.2f} | {core_secs:.2f} | {num_bytes / 1e6:.0f} |"
    )
    print(f"| `shardstream-ingest info` | {info_secs:.1f} | {info_core_secs:.1f} | {info_bytes / 1e6:.0f} |")
    print(json.dumps({"plan": plan, "info": measured.split(), "sizes": sizes}))


def run(program: str, data: Path) -> str:
    """Returns the output of a program in a separate process."""
    command = [sys.executable, "-c", program, str(data)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_dataset(data: Path, num_records: int, num_shards: int) -> DatasetInfo:
    """Creates a dataset folder without shards."""
    data.mkdir()
    generator = np.random.default_rng(1)
    sizes = np.diff(np.linspace(0, num_records, num_shards + 1).astype(np.int64))
    write_index(data / INDEX, sizes, generator)
    shards = tuple(
        ShardInfo(
            filename=shard_filename("photos", "train", number, num_shards),
            num_examples=size,
            num_bytes=size * RECORD_BYTES,
            sha256=generator.bytes(32).hex(),
        )
        for number, size in enumerate(sizes.tolist())
    )
    counts = np.bincount(np.arange(num_records, dtype=np.int64) % len(CLASS_NAMES)).tolist()
    num_rejected = num_records // REJECTED_EVERY
    info = DatasetInfo(
        data_dir=data,
        name="photos",
        version="1.0.0",
        class_names=CLASS_NAMES,
        display_names=CLASS_NAMES,
        judging=ProcessingSettings(
            image=ImageSettings(size=300, resize="crop", encoding="jpeg", quality=90),
            check="full",
            max_pixels=10**8,
        ),
        split_rule=SplitRule(seed=1, fractions={}, keep_together="duplicates", stratify=False),
        shard_bytes=1 << 27,
        splits={"train": SplitInfo(name="train", shards=shards, class_counts=tuple(counts))},
        verdicts={"ok": num_records, "rejected": num_rejected},
        manifest_sha256="",
    )
    write_tfds_files(info, data)
    write_manifest(data / MANIFEST, sizes, num_rejected, info, generator)
    info = info.with_manifest(file_sha256(data / MANIFEST))
    info.save(data)
    return info


def write_index(path: Path, sizes: np.ndarray, generator: np.random.Generator) -> None:
    """Writes an index of records of equal size."""
    first = 0
    with open_index_writer(path, int(sizes.sum())) as rows:
        for size in sizes.tolist():
            rows["offset"][first : first + size] = np.arange(size) * RECORD_BYTES
            rows["checksum"][first : first + size] = generator.integers(0, 1 << 32, size, np.uint32)
            first += size


def write_manifest(
    path: Path, sizes: np.ndarray, num_rejected: int, info: DatasetInfo, generator: np.random.Generator
) -> None:
    """Writes the manifest: after every REJECTED_EVERY records, one more file is rejected."""
    schema = manifest_schema().with_metadata({METADATA_KEY: info.encode()})
    first_rows = np.concatenate([[0], np.cumsum(sizes)])
    num_files = int(first_rows[-1]) + num_rejected
    drawn = draw_columns(generator)
    with path.open("wb") as file, make_writer(file, schema) as writer:
        for start in range(0, num_files, ROWS_PER_GROUP):
            files = np.arange(start, min(start + ROWS_PER_GROUP, num_files))
            writer.write_table(table(files, first_rows, num_rejected, schema, drawn))


def draw_columns(generator: np.random.Generator) -> dict[str, pa.Array]:
    """Returns the columns of a row group whose values differ in each file."""
    hexadecimal = generator.bytes(32 * ROWS_PER_GROUP).hex().encode()
    ends = pa.py_buffer(np.arange(0, 64 * ROWS_PER_GROUP + 1, 64, dtype=np.int32))
    return {
        "size_bytes": pa.array(generator.integers(20_000, 2_000_000, ROWS_PER_GROUP)),
        "sha256": pa.StringArray.from_buffers(ROWS_PER_GROUP, ends, pa.py_buffer(hexadecimal)),
        "perceptual_hash": pa.array(generator.integers(0, 1 << 64, ROWS_PER_GROUP, np.uint64)),
    }


def table(
    files: np.ndarray,
    first_rows: np.ndarray,
    num_rejected: int,
    schema: pa.Schema,
    drawn: dict[str, pa.Array],
) -> pa.Table:
    """Returns the rows of some files, with the same random values in each row group."""
    is_rejected = (files % (REJECTED_EVERY + 1) == REJECTED_EVERY) & (
        files // (REJECTED_EVERY + 1) < num_rejected
    )
    records = files - np.minimum((files + 1) // (REJECTED_EVERY + 1), num_rejected)
    shards = np.searchsorted(first_rows, records, side="right") - 1
    numbers = pc.call_function("cast", [pa.array(files)], pc.CastOptions(pa.string()))
    names = pa.array(records.astype(np.int32) % len(CLASS_NAMES))
    columns = [
        pc.call_function("binary_join_element_wise", [pa.scalar("photos/"), numbers, pa.scalar(".jpg"), ""]),
        *(drawn[name].slice(0, len(files)) for name in ("size_bytes", "sha256")),
        pa.DictionaryArray.from_arrays(names, pa.array(CLASS_NAMES)),
        pa.DictionaryArray.from_arrays(
            pa.array(np.where(is_rejected, 1, 0).astype(np.int32)), pa.array(["ok", "rejected"])
        ),
        pa.array(np.where(is_rejected, "cannot be read: Input/output error", "")),
        pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(files), np.int32), mask=is_rejected), pa.array(["train"])
        ),
        pa.array(shards.astype(np.int32), mask=is_rejected),
        pa.array((records - first_rows[shards]).astype(np.int32), mask=is_rejected),
        pa.array(np.full(len(files), 375, np.int32)),
        pa.array(np.full(len(files), 500, np.int32)),
        drawn["perceptual_hash"].slice(0, len(files)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


if __name__ == "__main__":
    main(tyro.cli(HundredMillionConfig))
