"""What is damaged in a dataset, made again out of the photos: to the bytes that it had, or not at all."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardstream.ingest.assembly import judge
from shardstream.ingest.assignment import assign_splits
from shardstream.ingest.catalog import Catalog
from shardstream.ingest.engine import Engine
from shardstream.ingest.errors import ConfigError, DatasetError
from shardstream.ingest.manifest import FILENAME as MANIFEST
from shardstream.ingest.manifest import write_manifest
from shardstream.ingest.metadata import DatasetInfo
from shardstream.ingest.origins import Origin
from shardstream.ingest.scan import Listing, scan_folder
from shardstream.ingest.shards import ShardPlan, make_spec, write_shard
from shardstream.ingest.units import UnitPlan
from shardstream.ingest.verdicts import REJECTED
from shardstream.ingest.whole_files import file_sha256
from shardstream.ingest.workplace import Workplace

_MAX_SHOWN = 3


class NotMendedError(Exception):
    """Says why something cannot be made again.

    Attributes:
        photos: The photos that are not as they were.
    """

    def __init__(self, why: str, photos: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.photos = tuple(photos)


class _File(NamedTuple):
    path: bytes  # Relative to the source folder, as the file system has it.
    status: os.stat_result


def remake_shard(
    info: DatasetInfo,
    split: str,
    number: int,
    origins: Sequence[Origin],
    *,
    images: Path,
    place: Workplace,
    engine: Engine,
) -> Path:
    """Writes a shard into `place.shards` and returns its path.

    Args:
        info: The dataset.
        split: Of the shard.
        number: Of the shard in its split.
        origins: What its records were made of.
        images: The source folder.
        place: Where the work is done.
        engine: What the work runs on.

    Raises:
        NotMendedError: Its photos are not as they were.
    """
    shard = info.split(split).shards[number]
    catalog = Catalog(_list_photos(info, origins, images))
    rows = np.arange(len(origins), dtype=np.uint32)
    judge(catalog, UnitPlan(catalog.listing, rows, judging=info.judging, folder=place.units), engine)
    _check_photos(catalog, origins)
    spec = make_spec(catalog, rows, place.shards / shard.filename, split)
    (written,) = engine.run_all(write_shard, [spec], alone=write_shard)
    if written != shard:
        raise NotMendedError(
            "its photos are as they were, but other versions of decoders make other bytes of them"
        )
    return spec.path


def remake_manifest(
    info: DatasetInfo, metadata: bytes, *, images: Path, place: Workplace, engine: Engine
) -> Path:
    """Writes the manifest into `place.dataset` and returns its path; judges all photos again for that.

    Args:
        info: What the dataset is thought to be. It is, if the manifest of the photos has the hash that it had.
        metadata: The bytes of metadata.json, in whatever state: the hash has to be in them.
        images: The source folder.
        place: Where the work is done.
        engine: What the work runs on.

    Raises:
        NotMendedError: The photos are not as they were.
    """
    try:
        listing = scan_folder(images, info.class_names)
    except ConfigError:
        raise NotMendedError(f"the categories are no longer {' '.join(info.class_names)}") from None
    except DatasetError as error:
        raise NotMendedError(str(error)) from None
    catalog = Catalog(listing)
    rows = np.arange(len(listing), dtype=np.uint32)
    judge(catalog, UnitPlan(listing, rows, judging=info.judging, folder=place.units), engine)
    assign_splits(catalog, info.split_rule)
    # Notes where each record goes.
    ShardPlan(catalog, place.shards, name=info.name, seed=info.split_rule.seed, shard_bytes=info.shard_bytes)
    path = place.dataset / MANIFEST
    write_manifest(catalog, path, info.with_manifest("").encode())
    if file_sha256(path).encode() not in metadata:
        raise NotMendedError(_what_changed(catalog, info))
    return path


def _list_photos(info: DatasetInfo, origins: Sequence[Origin], images: Path) -> Listing:
    """Lists just the photos of a shard, in the order of its records: there may be a hundred million others."""
    listing = Listing(images, info.class_names)
    gone, changed = [], []
    for origin in origins:
        file = _find(images, origin)
        if file is None:
            gone.append(origin.path)
        elif file.status.st_size != origin.size_bytes:
            changed.append(origin.path)
        else:
            listing.add(file.path, info.class_names.index(origin.class_name), file.status)
    _refuse({"gone": gone, "changed": changed}, len(origins))
    return listing


def _find(images: Path, origin: Origin) -> _File | None:
    """Returns the file of which the manifest has the path, where bytes that are not UTF-8 are spelt out."""
    spelt = origin.path.encode()
    meant = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), spelt)
    found = None
    for path in dict.fromkeys((spelt, meant)):
        try:
            found = _File(path, (images / os.fsdecode(path)).stat())
        except OSError:
            continue
        if found.status.st_size == origin.size_bytes:
            break
    return found


def _check_photos(catalog: Catalog, origins: Sequence[Origin]) -> None:
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
    """Raises an error if any photos are not as they were, with some of them named."""
    parts = []
    for how, paths in photos.items():
        if paths:
            more = ", ..." if len(paths) > _MAX_SHOWN else ""
            parts.append(f"{len(paths)} {how} ({', '.join(paths[:_MAX_SHOWN])}{more})")
    if parts:
        why = f"of its {num_photos} photos {' and '.join(parts)}"
        raise NotMendedError(why, [path for paths in photos.values() for path in paths])


def _what_changed(catalog: Catalog, info: DatasetInfo) -> str:
    changes = [
        f"{count} {verdict} instead of {info.verdicts.get(verdict, 0)}"
        for verdict, count in catalog.counts.items()
        if count != info.verdicts.get(verdict, 0)
    ]
    if changes:
        return f"the photos are not as they were: {', '.join(changes)}"
    return (
        "as many photos as there were, but not the same: other content, names, or times (which `cp -p` and `rsync -t` "
        "keep); or metadata.json is wrong as well; or another version of Arrow writes other bytes"
    )
