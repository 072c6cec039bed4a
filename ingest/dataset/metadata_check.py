"""What does the dataset have to be? metadata.json says it, and a copy in manifest.parquet says all but its own hash.

Two witnesses, so that a change of either is seen even where it fits itself, and either can be made again.
"""

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.corruption import Corruption
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import is_as_written, read_metadata, salvage_metadata
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.tfds_files import tfds_files
from shardstream.ingest.execution.processes import run_alone

_MAX_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataState:
    """What the files beside the shards say.

    Attributes:
        info: What the dataset has to be; None if neither metadata.json nor manifest.parquet is whole.
        doubtful: What the copy in a damaged manifest.parquet says, without its hash; None if it cannot be read, or need
            not be.
        damages: What is wrong with these files.
    """

    info: DatasetInfo | None
    doubtful: DatasetInfo | None
    damages: list[Corruption]


@dataclasses.dataclass(frozen=True, slots=True)
class _MetadataCopy:
    """What one file says, None if it cannot be read, and what is wrong with the file, if anything is."""

    info: DatasetInfo | None
    fault: str = ""

    @property
    def believable(self) -> DatasetInfo | None:
        return None if self.fault else self.info


def read_metadata_state(data_dir: Path) -> MetadataState:
    """Reads metadata.json, manifest.parquet and the files for TFDS, and compares them.

    Raises:
        DatasetError: There is neither metadata.json nor manifest.parquet: it is not a dataset folder.
    """
    metadata, manifest = data_dir / METADATA, data_dir / MANIFEST
    if not metadata.exists() and not manifest.exists():
        DatasetInfo.load(data_dir)  # Says why there is none.
    stated = _read_metadata(data_dir)
    sha256 = _sha256(manifest)
    copied = _read_copy(data_dir, sha256, is_vouched_for=_names(metadata, sha256))
    info = _believed(stated, copied, is_vouched_for=_names(metadata, sha256))
    doubtful = copied.info if copied.fault else None
    if info is None:
        return MetadataState(
            None, doubtful, [Corruption(METADATA, stated.fault), Corruption(MANIFEST, copied.fault)]
        )
    damages = [*_metadata_damages(metadata, stated, info), *_tfds_damages(info)]
    if sha256 != info.manifest_sha256:
        damages.append(Corruption(MANIFEST, copied.fault or "whole, but not the one of this dataset"))
    return MetadataState(info, doubtful, damages)


def _read_metadata(data_dir: Path) -> _MetadataCopy:
    path = data_dir / METADATA
    try:
        info = DatasetInfo.decode(data_dir, path, path.read_bytes())
        info.encode()
    except FileNotFoundError:
        return _MetadataCopy(None, "missing")
    except OSError as error:
        return _MetadataCopy(None, f"cannot be read: {error.strerror}")
    except DatasetError as error:
        return _MetadataCopy(None, _bare(error, path))
    except ValueError as error:  # Text that is no Unicode passes for JSON and cannot be written.
        return _MetadataCopy(None, f"cannot be read: {error}")
    return _MetadataCopy(info)


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _names(metadata: Path, sha256: str | None) -> bool:
    """Returns whether the hash of the manifest is in metadata.json, in whatever state that is otherwise."""
    try:
        return sha256 is not None and sha256.encode() in metadata.read_bytes()
    except OSError:
        return False


def _read_copy(data_dir: Path, sha256: str | None, *, is_vouched_for: bool) -> _MetadataCopy:
    """Returns the copy in the manifest, with the manifest's own hash if that is whole."""
    path = data_dir / MANIFEST
    if sha256 is None:
        return _MetadataCopy(None, "cannot be read" if path.exists() else "missing")
    try:
        # A damaged Parquet file is not for this process: its reader is a large one, in C++.
        is_whole = is_vouched_for or run_alone(is_as_written, path)
        fault = "" if is_whole else "changed since it was written"
    except DatasetError as error:
        fault = _bare(error, path)
    except BrokenExecutor:
        fault = "damaged: reading it kills its process"
    try:
        info = DatasetInfo.decode(data_dir, path, salvage_metadata(path) if fault else read_metadata(path))
    except DatasetError as error:
        return _MetadataCopy(None, fault or _bare(error, path))
    return _MetadataCopy(info if fault else info.with_manifest(sha256), fault)


def _believed(stated: _MetadataCopy, copied: _MetadataCopy, *, is_vouched_for: bool) -> DatasetInfo | None:
    """Returns what the more trustworthy of two witnesses says.

    Where both are whole and differ, and the one does not vouch for the other, the shards that are there decide.
    """
    if stated.believable is None or copied.believable is None or is_vouched_for:
        return copied.believable or stated.believable
    return max(copied.believable, stated.believable, key=_num_fitting)


def _num_fitting(info: DatasetInfo) -> int:
    """Returns how many shards there are of the name and the size that `info` says."""
    sizes = {path.name: path.stat().st_size for path in info.data_dir.iterdir() if path.is_file()}
    return sum(sizes.get(shard.filename) == shard.num_bytes for shard in info.shards.values())


def _metadata_damages(path: Path, stated: _MetadataCopy, info: DatasetInfo) -> Iterator[Corruption]:
    if stated.info is None:
        yield Corruption(METADATA, stated.fault)
        return
    differences = list(_differences(json.loads(stated.info.encode()), json.loads(info.encode())))
    for difference in differences[:_MAX_SHOWN]:
        yield Corruption(METADATA, difference)
    if len(differences) > _MAX_SHOWN:
        yield Corruption(METADATA, f"{len(differences) - _MAX_SHOWN} more values differ")
    if not differences and path.read_bytes() != info.encode():
        yield Corruption(METADATA, "was written by hand or by another program, though it says the same")


def _differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Yields the values of a JSON tree that are not as expected."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            yield from _differences(found.get(key), expected.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(one, other, f"{where}[{number}]")
    elif json.dumps(found) != json.dumps(expected):  # NaN is not NaN, but its text is.
        yield f"{where}: {_short(found)}, the copy in {MANIFEST} says {_short(expected)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tfds_damages(info: DatasetInfo) -> Iterator[Corruption]:
    for filename, expected in tfds_files(info).items():
        try:
            found = (info.data_dir / filename).read_bytes()
        except FileNotFoundError:
            yield Corruption(filename, "missing")
            continue
        except OSError as error:
            yield Corruption(filename, f"cannot be read: {error.strerror}")
            continue
        if found != expected:
            pairs = enumerate(zip(found, expected, strict=False))
            first = next((i for i, (one, other) in pairs if one != other), min(len(found), len(expected)))
            yield Corruption(filename, f"differs from what {METADATA} says, from byte {first} on")


def _bare(error: DatasetError, path: Path) -> str:
    """Returns what an error says, without the file and the remedy, which are said elsewhere."""
    return str(error).removeprefix(f"{path}: ").split("; ")[0]
