"""The steps from files to a dataset in the staging area that `build` and `update` share."""

import csv
import dataclasses
import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shardstream.ingest.common.atomic_io import file_sha256, open_atomic_nosync
from shardstream.ingest.common.errors import DatasetError, LimitError
from shardstream.ingest.common.progress import progress
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import open_index_writer
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import manifest_schema
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.source_state import FILENAME as SOURCE_STATE
from shardstream.ingest.dataset.source_state import write_source_states
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, TRAIN
from shardstream.ingest.dataset.tfds_files import dataset_name, dataset_version, write_tfds_files
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.images.settings import ProcessingSettings
from shardstream.ingest.pipeline.catalog import Catalog, rejected_files, settle_identical
from shardstream.ingest.pipeline.disk_space import check_room_for_shards
from shardstream.ingest.pipeline.look_alikes import find_leaks
from shardstream.ingest.pipeline.manifest_writer import load_arrow, write_manifest
from shardstream.ingest.pipeline.map_tasks import MapPlan, process_task, process_task_in_parts
from shardstream.ingest.pipeline.shard_plan import ShardPlan, plan_by_hash
from shardstream.ingest.pipeline.shards import write_shard, write_shard_alone
from shardstream.ingest.pipeline.sorted_runs import sort_where_seeks_are_slow
from shardstream.ingest.pipeline.split_assignment import assign_splits, drawn_splits
from shardstream.ingest.pipeline.staging import REJECTED_LIST, StagingArea
from shardstream.ingest.pipeline.unchanged_shards import PreviousShards

# Imported by worker processes.
TASK_MODULES = (
    "shardstream.ingest.pipeline.map_tasks",
    "shardstream.ingest.pipeline.shards",
    "shardstream.ingest.pipeline.sorted_runs",
    "shardstream.ingest.pipeline.look_alikes",
)


def process_files(
    catalog: Catalog,
    plan: MapPlan,
    engine: Engine,
    *,
    max_rejected: float = 1.0,
    place: StagingArea | None = None,
) -> None:
    """Processes the files of `plan`, and stores their verdicts in `catalog`, including duplicates.

    Args:
        catalog: All files.
        plan: The files to process.
        engine: The engine that runs the work.
        max_rejected: Maximum fraction of all files that may be rejected.
        place: The staging area for the list of rejected files.

    Raises:
        LimitError: It is already certain that more will be rejected.
    """
    threading.Thread(target=load_arrow).start()
    num_rejected = 0
    with progress("judging", plan.num_files, "files") as advance:
        for done in engine.run_all(process_task, plan, alone=process_task_in_parts):
            advance(done.num_files, num_bytes=done.num_bytes, num_rejected=done.num_rejected)
            num_rejected += done.num_rejected
            if place is not None and num_rejected > max_rejected * len(catalog.listing):
                found = list(plan.rejected_so_far())
                raise _too_many_rejected(found, len(catalog.listing), max_rejected, place)
    for rows, pictures, verdicts in plan.results():
        catalog.add_unit(rows, str(pictures), verdicts)
    settle_identical(catalog)
    if place is not None:
        write_rejected_list(place, rejected_files(catalog))


def check_verdicts(catalog: Catalog, *, max_rejected: float, place: StagingArea) -> None:
    """Checks that enough images are left for a dataset.

    Raises:
        LimitError: A larger fraction than `max_rejected` was rejected.
        DatasetError: A class has no image left.
    """
    listing = catalog.listing
    if catalog.counts["rejected"] > max_rejected * len(listing):
        raise _too_many_rejected(list(rejected_files(catalog)), len(listing), max_rejected, place)
    kept = np.bincount(catalog.labels[catalog.kept()], minlength=len(listing.class_names))
    for label in np.flatnonzero(kept == 0).tolist():
        name = listing.class_names[label]
        counts = catalog.verdict_counts(catalog.labels == label)
        found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        raise DatasetError(f"{listing.root}: category {name!r} has no usable image; its files: {found}")


def _too_many_rejected(
    rejected: Sequence[tuple[str, str]], num_files: int, max_rejected: float, place: StagingArea
) -> LimitError:
    write_rejected_list(place, rejected)
    path, reason = rejected[0] if rejected else ("", "")
    return LimitError(
        f"{len(rejected)} of {num_files} files were rejected, more than --max-rejected {max_rejected:g} allows; the "
        f"first is {path}: {reason}. All are listed in {place.root / REJECTED_LIST}. Fix or remove them, or raise the "
        "limit: the work done so far is kept and used again"
    )


def write_rejected_list(place: StagingArea, rejected: Iterable[tuple[str, str]]) -> None:
    """Writes path and reason of rejected files into the staging area."""
    with open_atomic_nosync(place.root / REJECTED_LIST) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(("path", "reason"))
        writer.writerows(rejected)
        text.flush()
        text.detach()


class Assembled(NamedTuple):
    """A dataset in the staging area.

    Attributes:
        info: Its description.
        num_written: The number of shards that were written; the others are reused from the previous dataset.
    """

    info: DatasetInfo
    num_written: int


def assemble(
    catalog: Catalog,
    place: StagingArea,
    engine: Engine,
    *,
    display_names: Sequence[str],
    judging: ProcessingSettings,
    split_rule: SplitRule,
    shard_bytes: int,
    versions: Mapping[str, str],
    layout: Layout,
    find_look_alikes: bool,
    previous: PreviousShards | None = None,
) -> Assembled:
    """Writes the dataset of all kept files into `place.dataset`; reuses unchanged shards of `previous`.

    Raises:
        DatasetError: A split would be empty.
    """
    assign_splits(catalog, split_rule, engine)
    _check_splits(catalog, split_rule)
    name = dataset_name(place.data.absolute())
    plan = plan_by_hash(catalog, place.shards, name=name, seed=split_rule.seed, shard_bytes=shard_bytes)
    unchanged = _link_unchanged(plan, place, previous) if previous is not None else {}
    rows = plan.rows(without=unchanged)
    check_room_for_shards(int(catalog.lengths[rows].sum(dtype=np.int64)), place.root)
    sort_where_seeks_are_slow(catalog, rows, place.shards, engine)
    shards = _write(plan, place, engine, unchanged, previous)
    info = DatasetInfo(
        data_dir=place.data,
        name=name,
        version=dataset_version(place.data.absolute()),
        class_names=catalog.listing.class_names,
        display_names=tuple(display_names),
        judging=judging,
        split_rule=split_rule,
        shard_bytes=shard_bytes,
        splits=_splits(catalog, plan, shards),
        verdicts=catalog.counts,
        manifest_sha256="",
        versions=versions,
        layout=layout,
        look_alikes=find_leaks(catalog, engine) if find_look_alikes else None,
        find_look_alikes=find_look_alikes,
        largest_source_side=catalog.largest_side(),
    )
    return Assembled(write_descriptions(catalog, info, place), len(shards) - len(unchanged))


def write_descriptions(catalog: Catalog, info: DatasetInfo, place: StagingArea) -> DatasetInfo:
    """Writes all files except the shards into `place.dataset`; returns `info` with the manifest's hash."""
    write_tfds_files(info, place.dataset)
    manifest = place.dataset / MANIFEST
    write_manifest(catalog, manifest, info.encode(), manifest_schema())
    info = info.with_manifest(file_sha256(manifest))
    write_source_states(place.dataset / SOURCE_STATE, catalog.listing.states, info.manifest_sha256)
    info.save(place.dataset)  # Last: a folder with metadata.json is complete.
    return info


def _check_splits(catalog: Catalog, rule: SplitRule) -> None:
    """Checks that no split that images are drawn for is empty."""
    kept, given = catalog.kept(), catalog.listing.given_splits
    num_images = int((kept & (given == SPLIT_NAMES.index(TRAIN))).sum() if len(given) else kept.sum())
    drawn = drawn_splits(catalog, rule) if len(given) else SPLIT_NAMES
    for split in drawn if num_images else ():
        fraction = 1 - sum(rule.fractions.values()) if split == TRAIN else rule.fractions[split]
        if fraction > 0 and not sum(catalog.class_counts(split)):
            raise DatasetError(
                f"{catalog.listing.root}: split {split!r} would be empty: a share of {fraction:g} of {num_images} "
                "images; add images, change the fractions, --stratify, or choose another --seed"
            )


def _link_unchanged(plan: ShardPlan, place: StagingArea, previous: PreviousShards) -> dict[str, ShardInfo]:
    """Hard-links the unchanged shards; returns the old descriptions by the new names.

    On a file system without hard links they are written again, with the same bytes.
    """
    found = previous.find_unchanged(plan)
    return {name: shard for name, shard in found.items() if place.link(shard.filename, name)}


def _write(
    plan: ShardPlan,
    place: StagingArea,
    engine: Engine,
    unchanged: Mapping[str, ShardInfo],
    previous: PreviousShards | None,
) -> dict[str, ShardInfo]:
    """Writes the shards that were not linked, and the index; returns the description of each shard by its name."""
    shards = {name: dataclasses.replace(shard, filename=name) for name, shard in unchanged.items()}
    first_rows = plan.first_rows()
    num_linked = sum(shard.num_examples for shard in unchanged.values())
    with (
        progress("writing", plan.num_records - num_linked, "records") as advance,
        open_index_writer(place.dataset / INDEX, plan.num_records) as index,
    ):
        for name, rows in previous.index_rows(unchanged) if previous is not None else ():
            index[first_rows[name] :][: len(rows)] = rows
        for shard, rows in engine.run_all(
            write_shard, plan.specs(without=unchanged), alone=write_shard_alone
        ):
            place.take(shard.filename)
            shards[shard.filename] = shard
            index[first_rows[shard.filename] :][: len(rows)] = rows
            advance(shard.num_examples, num_bytes=shard.num_bytes)
    return shards


def _splits(catalog: Catalog, plan: ShardPlan, shards: Mapping[str, ShardInfo]) -> dict[str, SplitInfo]:
    return {
        split: SplitInfo(
            name=split,
            shards=tuple(shards[filename] for filename in plan.filenames(split)),
            class_counts=catalog.class_counts(split),
        )
        for split in SPLIT_NAMES
        if plan.filenames(split)  # TFDS cannot read an empty split.
    }
