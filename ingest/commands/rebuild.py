"""Rebuilds corrupt files of a dataset from the source images: byte-identical, or not at all."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import manifest_schema, old_manifest_schema
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.provenance import RecordSource
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.manifest_writer import write_manifest
from shardstream.ingest.pipeline.map_tasks import MapPlan
from shardstream.ingest.pipeline.results import REJECTED
from shardstream.ingest.pipeline.scan import scan_folder
from shardstream.ingest.pipeline.shard_plan import make_spec, plan_as_written
from shardstream.ingest.pipeline.shards import write_shard, write_shard_alone
from shardstream.ingest.pipeline.split_assignment import assign_splits
from shardstream.ingest.pipeline.staging import StagingArea
from shardstream.ingest.pipeline.steps import process_files

_MAX_SHOWN = 3


class CannotRepairError(Exception):
    """A file cannot be rebuilt; the message has the reason.

    Attributes:
        photos: The source images that changed.
    """

    def __init__(self, why: str, photos: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.photos = tuple(photos)


class _File(NamedTuple):
    path: bytes  # Path relative to the source folder, as the file system has it.
    status: os.stat_result


def remake_shard(
    info: DatasetInfo,
    split: str,
    number: int,
    origins: Sequence[RecordSource],
    *,
    images: Path,
    place: StagingArea,
    engine: Engine,
) -> Path:
    """Rebuilds a shard in `place.shards` and returns its path.

    Args:
        info: The dataset.
        split: Split of the shard.
        number: Number of the shard in its split.
        origins: The source files of its records.
        images: The source folder.
        place: The staging area.
        engine: The engine that runs the work.

    Raises:
        CannotRepairError: Its source images changed.
    """
    shard = info.split(split).shards[number]
    catalog = Catalog(_list_photos(info, origins, images))
    rows = np.arange(len(origins), dtype=np.uint32)
    process_files(catalog, MapPlan(catalog.listing, rows, judging=info.judging, folder=place.units), engine)
    _check_photos(catalog, origins)
    spec = make_spec(catalog, place.shards / shard.filename, rows)
    (written,) = engine.run_all(write_shard, [spec], alone=write_shard_alone)
    if written.info != shard:
        raise CannotRepairError(
            "its photos are as they were, but other versions of decoders make other bytes of them"
        )
    return spec.path


def remake_manifest(
    info: DatasetInfo, *, images: Path, labels: Path | None, place: StagingArea, engine: Engine
) -> Path:
    """Rebuilds the manifest in `place.dataset` and returns its path; processes all source images again.

    Args:
        info: The expected dataset. It is confirmed if the rebuilt manifest has the hash in it, or equals the existing
            manifest.
        images: The source folder.
        labels: The table of labels if the classes came from one.
        place: The staging area.
        engine: The engine that runs the work.

    Raises:
        CannotRepairError: The source images changed.
    """
    if info.layout.has_table != (labels is not None):
        raise CannotRepairError(
            "its classes came from a table: give it again with --labels FILE.csv"
            if info.layout.has_table
            else "its classes came from folders: leave out --labels"
        )
    try:
        listing = scan_folder(images, info.class_names, layout=info.layout, labels=labels)
    except ConfigError:
        raise CannotRepairError(f"the categories are no longer {' '.join(info.class_names)}") from None
    except DatasetError as error:
        raise CannotRepairError(str(error)) from None
    catalog = Catalog(listing)
    rows = np.arange(len(listing), dtype=np.uint32)
    process_files(catalog, MapPlan(listing, rows, judging=info.judging, folder=place.units), engine)
    assign_splits(catalog, info.split_rule, engine)
    plan_as_written(catalog, place.shards, info)  # Sets shard and position of each record.
    path = place.dataset / MANIFEST
    there = info.data_dir / MANIFEST
    expected = {info.manifest_sha256, file_sha256(there) if there.is_file() else ""}
    for schema in (manifest_schema(), old_manifest_schema()):
        write_manifest(catalog, path, info.with_manifest("").encode(), schema)
        if file_sha256(path) in expected:
            return path
    raise CannotRepairError(_what_changed(catalog, info))


def _list_photos(info: DatasetInfo, origins: Sequence[RecordSource], images: Path) -> Listing:
    """Lists only the source images of a shard, in record order: there may be a hundred million others."""
    listing = Listing(images, info.class_names)
    gone, changed = [], []
    for origin in origins:
        file = _find(images, origin)
        if file is None:
            gone.append(origin.path)
        elif file.status.st_size != origin.size_bytes:
            changed.append(origin.path)
        else:
            listing.append(file.path, info.class_names.index(origin.class_name), FileState.of(file.status))
    _refuse({"gone": gone, "changed": changed}, len(origins))
    return listing


def _find(images: Path, origin: RecordSource) -> _File | None:
    """Finds the file for a path of the manifest, in which bytes that are not UTF-8 are escaped."""
    spelled = origin.path.encode()
    meant = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), spelled)
    found = None
    for path in dict.fromkeys((spelled, meant)):
        try:
            found = _File(path, (images / os.fsdecode(path)).stat())
        except OSError:
            continue
        if found.status.st_size == origin.size_bytes:
            break
    return found


def _check_photos(catalog: Catalog, origins: Sequence[RecordSource]) -> None:
    expected = np.frombuffer(bytes.fromhex("".join(origin.sha256 for origin in origins)), ">u8").reshape(
        -1, 4
    )
    is_same = (catalog.digests == expected).all(axis=1)
    is_read = catalog.digests.any(axis=1)
    _refuse(
        {
            "changed": [origins[row].path for row in np.flatnonzero(~is_same & is_read).tolist()],
            "unreadable": [origins[row].path for row in np.flatnonzero(~is_read).tolist()],
            "rejected by now": [
                origins[row].path for row in np.flatnonzero(is_same & (catalog.judged == REJECTED)).tolist()
            ],
        },
        len(origins),
    )


def _refuse(photos: Mapping[str, Sequence[str]], num_photos: int) -> None:
    """Raises an error that lists some of the changed source images, if there are any."""
    parts = []
    for how, paths in photos.items():
        if paths:
            more = ", ..." if len(paths) > _MAX_SHOWN else ""
            parts.append(f"{len(paths)} {how} ({', '.join(paths[:_MAX_SHOWN])}{more})")
    if parts:
        why = f"of its {num_photos} photos {' and '.join(parts)}"
        raise CannotRepairError(why, [path for paths in photos.values() for path in paths])


def _what_changed(catalog: Catalog, info: DatasetInfo) -> str:
    changes = [
        f"{count} {verdict} instead of {info.verdicts.get(verdict, 0)}"
        for verdict, count in catalog.counts.items()
        if count != info.verdicts.get(verdict, 0)
    ]
    if changes:
        return f"the photos are not as they were: {', '.join(changes)}"
    return (
        "as many photos as there were, but not the same: other content or names (or other times, which a manifest of "
        "shardstream 0.2.0 has); or metadata.json is wrong as well; or another version of Arrow writes other bytes"
    )
