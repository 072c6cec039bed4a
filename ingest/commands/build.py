"""The `build` command: class folders to a dataset folder."""

import time
from pathlib import Path

import numpy as np

from shardstream.ingest.commands.config import BuildConfig
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.versions import writer_versions
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.pipeline.build_result import BuildResult, summarize
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.diagnostics import look_through_manifest
from shardstream.ingest.pipeline.disk_space import check_free_space
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.map_tasks import MapPlan
from shardstream.ingest.pipeline.scan import scan_folder
from shardstream.ingest.pipeline.split_assignment import DUPLICATES, drawn_splits
from shardstream.ingest.pipeline.staging import has_staging, open_staging
from shardstream.ingest.pipeline.steps import TASK_MODULES, assemble, check_verdicts, process_files


def build_dataset(config: BuildConfig) -> BuildResult:
    """Writes the images in `config.images` as a dataset into `config.data`.

    All work happens in `DATA.incomplete`, which is renamed to DATA at the end. Interrupted calls resume when repeated.

    Raises:
        ConfigError, DatasetError: The input is invalid; only `DATA.incomplete` is left.
        LimitError: More files were rejected than `config.max_rejected` allows.
        MachineError: The disk is full, the images disappeared, or a worker process died without a file as the cause.
    """
    began = time.monotonic()
    if not _is_free(config.data):
        return _finish_killed(config)
    with (
        open_engine(
            config.engine,
            workers=config.workers,
            scheduler=config.scheduler,
            preload=TASK_MODULES,
            folders=[config.images, config.data.absolute().parent, *config.work_folders],
        ) as engine,
        open_staging(
            config.data, _options(config), restart=config.restart, work_dir=config.work_dir
        ) as place,
    ):
        layout = config.layout
        listing = scan_folder(
            config.images,
            config.class_names,
            layout=layout,
            labels=config.labels,
            max_missing=config.max_rejected,
            spool=place.spool,
        )
        display_names = _display_names(config, listing)
        check_free_space(len(listing), config.judging.image, [place.units, place.shards])
        catalog = Catalog(listing)
        _check_keep_together(config, catalog)
        rows = np.arange(len(listing), dtype=np.uint32)
        plan = MapPlan(listing, rows, judging=config.judging, folder=place.units)
        process_files(catalog, plan, engine, max_rejected=config.max_rejected, place=place)
        check_verdicts(catalog, max_rejected=config.max_rejected, place=place)
        assembled = assemble(
            catalog,
            place,
            engine,
            display_names=display_names,
            judging=config.judging,
            split_rule=config.split_rule,
            shard_bytes=config.shard_bytes,
            versions=writer_versions(),
            layout=layout,
            find_look_alikes=config.find_look_alikes,
        )
        place.publish()
    return summarize(catalog, assembled, num_read=len(listing), seconds=time.monotonic() - began)


def _is_free(data: Path) -> bool:
    """Whether `data` does not exist or is an empty folder, as job systems create them."""
    if data.is_symlink():
        return False
    return not data.exists() or (data.is_dir() and not any(data.iterdir()))


def _finish_killed(config: BuildConfig) -> BuildResult:
    """Cleans up after the same build if it was killed after the dataset was published."""
    began = time.monotonic()
    taken = ConfigError(
        f"{config.data} exists already: bring it up to date with `shardstream-ingest update`, remove it, or choose "
        "another name"
    )
    if config.restart or not has_staging(config.data):
        raise taken
    with open_staging(config.data, _options(config), work_dir=config.work_dir) as place:
        info = DatasetInfo.load(config.data)
        made_by = info.split_rule, info.shard_bytes, info.layout, info.find_look_alikes
        if made_by != (config.split_rule, config.shard_bytes, config.layout, config.find_look_alikes):
            raise taken
        place.remove()
    findings = look_through_manifest(info)
    secs = time.monotonic() - began
    return BuildResult(
        info=info,
        findings=findings,
        passed_over={},
        num_read=0,
        source_bytes=0,
        seconds=secs,
        num_shards_written=0,
    )


def _options(config: BuildConfig) -> dict[str, object]:
    """Returns the options that determine the verdicts and the stored images."""
    return {
        "command": "build",
        "IMAGES": str(config.images.resolve()),
        "--image-size": config.image_size,
        "--resize": config.resize,
        "--encoding": config.encoding,
        "--quality": config.quality,
        "--check": config.check,
        "--max-pixels": config.max_pixels,
    }


def _check_keep_together(config: BuildConfig, catalog: Catalog) -> None:
    """Refuses --keep-together if it has no effect because the source gives every split."""
    splits_are_given = len(catalog.listing.given_splits) > 0
    if (
        splits_are_given
        and config.keep_together != DUPLICATES
        and not any(drawn_splits(catalog, config.split_rule).values())
    ):
        raise ConfigError(
            f"--keep-together {config.keep_together}: {config.images} gives every split, and they are kept as given; "
            "leave it out (near-duplicates in two splits are listed after the build)"
        )


def _display_names(config: BuildConfig, listing: Listing) -> tuple[str, ...]:
    names = config.display_names or listing.class_names
    if len(names) != len(listing.class_names):
        raise ConfigError(
            f"--display-names has {len(names)} names for {len(listing.class_names)} classes: "
            f"{' '.join(listing.class_names)}"
        )
    return names
