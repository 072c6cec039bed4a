"""Checks the metadata, which exist twice: metadata.json, and a copy in manifest.parquet without the manifest's hash.

Corruption of one copy is detected by, and repaired from, the other.
"""

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.dataset.corruption import Corruption
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import check_rows, read_metadata
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.tfds_files import tfds_files
from shardstream.ingest.execution.processes import run_alone

_MAX_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataState:
    """The metadata of a dataset, and the corruption of the files other than shards.

    Attributes:
        info: The expected dataset; None if neither metadata.json nor manifest.parquet can be read.
        damages: The corruption of these files.
    """

    info: DatasetInfo | None
    damages: list[Corruption]


@dataclasses.dataclass(frozen=True, slots=True)
class _MetadataCopy:
    """The metadata of one file, None if it cannot be read, and a description of its corruption, if any."""

    info: DatasetInfo | None
    fault: str = ""


def read_metadata_state(data_dir: Path) -> MetadataState:
    """Reads metadata.json, manifest.parquet and the files for TFDS, and compares them.

    Raises:
        DatasetError: It is not a dataset folder: it has neither metadata.json nor manifest.parquet.
    """
    if not (data_dir / METADATA).exists() and not (data_dir / MANIFEST).exists():
        DatasetInfo.load(data_dir)  # Raises the error that explains what is missing.
    stated = _read_metadata(data_dir)
    sha256 = _sha256(data_dir / MANIFEST)
    copied = _read_copy(data_dir, sha256)
    info = _more_trustworthy(stated.info, copied.info, sha256)
    if info is None:
        return MetadataState(None, [Corruption(METADATA, stated.fault), Corruption(MANIFEST, copied.fault)])
    damages = [*_metadata_damages(stated, info), *_tfds_damages(info)]
    if fault := copied.fault or _manifest_fault(info, sha256):
        damages.append(Corruption(MANIFEST, fault))
    return MetadataState(info, damages)


def _read_metadata(data_dir: Path) -> _MetadataCopy:
    if not (data_dir / METADATA).exists():
        return _MetadataCopy(None, "missing")
    try:
        return _MetadataCopy(DatasetInfo.load(data_dir))
    except DatasetError as error:
        return _MetadataCopy(None, _bare(error, data_dir / METADATA))


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError as error:
        if is_machine_error(error):
            raise
        return None


def _read_copy(data_dir: Path, sha256: str | None) -> _MetadataCopy:
    """Returns the copy in the manifest, with the manifest's own hash."""
    path = data_dir / MANIFEST
    if sha256 is None:
        return _MetadataCopy(None, "cannot be read" if path.exists() else "missing")
    try:
        # In its own process: a corrupt Parquet file may crash the C++ reader.
        info = run_alone(_decode_copy, path)
    except DatasetError as error:
        return _MetadataCopy(None, _bare(error, path))
    except BrokenExecutor:
        return _MetadataCopy(None, "corrupt: reading it kills its process")
    return _MetadataCopy(info.with_manifest(sha256))


def _decode_copy(path: Path) -> DatasetInfo:
    return DatasetInfo.decode(path.parent, path, read_metadata(path))


def _manifest_fault(info: DatasetInfo, sha256: str | None) -> str:
    """Returns a description of the corruption of the manifest's rows; empty if there is none."""
    try:
        run_alone(check_rows, info)
    except DatasetError as error:
        return _bare(error, info.data_dir / MANIFEST)
    except BrokenExecutor:
        return "corrupt: reading it kills its process"
    return "" if sha256 == info.manifest_sha256 else f"complete, but not the one that {METADATA} names"


def _more_trustworthy(
    stated: DatasetInfo | None, copied: DatasetInfo | None, sha256: str | None
) -> DatasetInfo | None:
    """Returns the more trustworthy of two copies.

    If both are readable but differ, and metadata.json does not have the hash of the manifest, the shards decide.
    """
    if stated is None or copied is None:
        return copied or stated
    if stated.manifest_sha256 == sha256:
        return copied
    if stated.with_manifest("") == copied.with_manifest(""):
        return stated
    return max(stated, copied, key=_num_fitting)


def _num_fitting(info: DatasetInfo) -> int:
    """Returns how many shards of `info` exist with the right name and size."""
    sizes = {path.name: path.stat().st_size for path in info.data_dir.iterdir() if path.is_file()}
    return sum(sizes.get(shard.filename) == shard.num_bytes for shard in info.shards.values())


def _metadata_damages(stated: _MetadataCopy, info: DatasetInfo) -> Iterator[Corruption]:
    if stated.info is None:
        yield Corruption(METADATA, stated.fault)
        return
    differences = list(_differences(json.loads(stated.info.encode()), json.loads(info.encode())))
    for difference in differences[:_MAX_SHOWN]:
        yield Corruption(METADATA, difference)
    if len(differences) > _MAX_SHOWN:
        yield Corruption(METADATA, f"{len(differences) - _MAX_SHOWN} more values differ")


def _differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Yields the values of a JSON tree that differ from the expected ones."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            yield from _differences(found.get(key), expected.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(one, other, f"{where}[{number}]")
    elif json.dumps(found) != json.dumps(expected):
        yield f"{where}: {_short(found)}, the copy in {MANIFEST} says {_short(expected)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tfds_damages(info: DatasetInfo) -> Iterator[Corruption]:
    for filename, expected in tfds_files(info).items():
        try:
            found = read_regular(info.data_dir / filename, max_bytes=2 * len(expected) + 1024)
        except FileNotFoundError:
            yield Corruption(filename, "missing")
            continue
        except OSError as error:
            if is_machine_error(error):
                raise
            yield Corruption(filename, f"cannot be read: {error.strerror}")
            continue
        if found != expected:
            pairs = enumerate(zip(found, expected, strict=False))
            first = next((i for i, (one, other) in pairs if one != other), min(len(found), len(expected)))
            yield Corruption(filename, f"differs from what {METADATA} says, from byte {first} on")


def _bare(error: DatasetError, path: Path) -> str:
    """Returns the message of an error without the file and the hint, which are printed separately."""
    return str(error).removeprefix(f"{path}: ").split("; ")[0]
