"""From files to a dataset in the staging area: the steps that `build` and `update` share."""

import threading
from collections.abc import Mapping, Sequence

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import DatasetError, LimitError
from shardstream.ingest.common.progress import progress
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, TRAIN
from shardstream.ingest.dataset.tfds_files import dataset_name, dataset_version, write_tfds_files
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.images.settings import ProcessingSettings
from shardstream.ingest.pipeline.catalog import Catalog, rejected_files, settle_identical
from shardstream.ingest.pipeline.manifest_writer import load_arrow, write_manifest
from shardstream.ingest.pipeline.map_tasks import MapPlan, process_task, process_task_in_parts
from shardstream.ingest.pipeline.shards import ShardPlan, write_shard, write_shard_alone
from shardstream.ingest.pipeline.split_assignment import assign_splits
from shardstream.ingest.pipeline.staging import StagingArea

# What worker processes run.
TASK_MODULES = ("shardstream.ingest.pipeline.map_tasks", "shardstream.ingest.pipeline.shards")


def process_files(catalog: Catalog, plan: MapPlan, engine: Engine) -> int:
    """Processes the files of `plan`, and notes in `catalog` what became of them, each by itself and among the others.

    Returns how many of them have another content than was known.
    """
    threading.Thread(target=load_arrow).start()
    with progress("judging", plan.num_files, "files") as advance:
        for done in engine.run_all(process_task, plan, alone=process_task_in_parts):
            advance(done.num_files, num_bytes=done.num_bytes, num_rejected=done.num_rejected)
    num_changed = sum(
        catalog.add_unit(rows, str(pictures), verdicts) for rows, pictures, verdicts in plan.results()
    )
    settle_identical(catalog)
    return num_changed


def check_verdicts(catalog: Catalog, *, max_rejected: float) -> None:
    """Sees to it that there is enough to make a dataset of.

    Raises:
        LimitError: A larger share than `max_rejected` was rejected.
        DatasetError: A class has no picture left.
    """
    listing = catalog.listing
    rejected = catalog.counts["rejected"]
    if rejected > max_rejected * len(listing):
        path, reason = next(iter(rejected_files(catalog)))
        raise LimitError(
            f"{rejected} of {len(listing)} files were rejected, more than --max-rejected {max_rejected:g} allows; the "
            f"first is {path}: {reason}. Mend or remove them, or raise the limit: the work done so far is kept and "
            "used again"
        )
    for label, name in enumerate(listing.class_names):
        of_class = catalog.labels == label
        if not (catalog.kept() & of_class).any():
            counts = catalog.verdict_counts(of_class)
            found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
            raise DatasetError(f"{listing.root}: category {name!r} has no usable photo; its files: {found}")


def assemble(
    catalog: Catalog,
    place: StagingArea,
    engine: Engine,
    *,
    display_names: Sequence[str],
    judging: ProcessingSettings,
    split_rule: SplitRule,
    shard_bytes: int,
) -> DatasetInfo:
    """Writes the dataset of all kept files into `place.dataset` and returns its description.

    Raises:
        DatasetError: A split would be empty.
    """
    assign_splits(catalog, split_rule)
    _check_splits(catalog, split_rule)
    name = dataset_name(place.data.absolute())
    plan = ShardPlan(catalog, place.shards, name=name, seed=split_rule.seed, shard_bytes=shard_bytes)
    shards = _write(plan, place, engine)
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
    )
    write_tfds_files(info, place.dataset)
    return write_descriptions(catalog, info, place)


def write_descriptions(catalog: Catalog, info: DatasetInfo, place: StagingArea) -> DatasetInfo:
    """Writes the manifest and then the metadata into `place.dataset`; returns `info` with the manifest's hash."""
    manifest = place.dataset / MANIFEST
    write_manifest(catalog, manifest, info.encode())
    info = info.with_manifest(file_sha256(manifest))
    info.save(place.dataset)  # Last: a folder with metadata.json is complete.
    return info


def _check_splits(catalog: Catalog, rule: SplitRule) -> None:
    num_kept = int(catalog.kept().sum())
    for split in SPLIT_NAMES:
        fraction = 1 - sum(rule.fractions.values()) if split == TRAIN else rule.fractions[split]
        if fraction > 0 and not sum(catalog.class_counts(split)):
            raise DatasetError(
                f"{catalog.listing.root}: split {split!r} would be empty: a share of {fraction:g} of {num_kept} "
                "photos; add photos, change the shares, or choose another --seed"
            )


def _write(plan: ShardPlan, place: StagingArea, engine: Engine) -> dict[str, ShardInfo]:
    """Returns the description of each shard by the name of its file."""
    shards: dict[str, ShardInfo] = {}
    with progress("writing", plan.num_records, "records") as advance:
        for shard in engine.run_all(write_shard, plan, alone=write_shard_alone):
            place.take(shard.filename)
            shards[shard.filename] = shard
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
        if plan.filenames(split)  # TFDS cannot read a split that is empty.
    }
