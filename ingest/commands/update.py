"""The `update` command: the result of a new `build`, with a fraction of its work."""

import logging
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.commands.config import UpdateConfig
from shardstream.ingest.common.atomic_io import replace_in
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.versions import differing, mixed, writer_versions
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.source_state import FILENAME as SOURCE_STATE
from shardstream.ingest.dataset.source_state import write_source_states
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.pipeline.build_result import BuildResult, summarize
from shardstream.ingest.pipeline.catalog import Catalog, settle_identical
from shardstream.ingest.pipeline.changes import (
    check_classes,
    check_gone,
    differs,
    find_changes,
)
from shardstream.ingest.pipeline.clutter import is_clutter
from shardstream.ingest.pipeline.disk_space import check_free_space
from shardstream.ingest.pipeline.listing import Listing, shown
from shardstream.ingest.pipeline.map_tasks import MapPlan
from shardstream.ingest.pipeline.own_files import DESCRIPTIONS
from shardstream.ingest.pipeline.reuse import PreviousState, load_previous
from shardstream.ingest.pipeline.scan import scan_folder
from shardstream.ingest.pipeline.split_assignment import assign_splits
from shardstream.ingest.pipeline.staging import StagingArea, open_staging
from shardstream.ingest.pipeline.steps import (
    TASK_MODULES,
    Assembled,
    assemble,
    check_verdicts,
    process_files,
)
from shardstream.ingest.pipeline.unchanged_shards import PreviousShards

logger = logging.getLogger(__name__)

_MAX_SHOWN = 3


def update_dataset(config: UpdateConfig) -> BuildResult:
    """Updates the dataset in `config.data` to be byte-identical to a new build from `config.images`.

    The old dataset stays unchanged until the new one replaces it. If interrupted, calling it again resumes.

    Raises:
        ConfigError, DatasetError: The input is invalid, or the old dataset is corrupt.
        LimitError: More files were rejected than `config.max_rejected` allows.
        MachineError: The disk is full, the images disappeared, or a worker process died without a file as the cause.
    """
    began = time.monotonic()
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
        old = DatasetInfo.load(config.data)
        _check_nothing_else_there(old)
        has_other_versions = warn_of_versions(old, rehash=config.rehash)
        listing = scan_again(config, old, spool=place.spool)
        check_classes(old, listing, allow_class_changes=config.allow_class_changes)
        catalog = Catalog(listing)
        state = load_previous(catalog, old)
        check_gone(old, listing, state, max_gone=config.max_gone, num_reappeared=None)
        files = np.ones(len(listing), bool) if config.rehash else ~state.same
        known = catalog.digests.copy()
        is_made_anew = config.rehash and has_other_versions
        if is_made_anew:
            # The existing records were made by other versions: process all files again.
            catalog.digests[:] = 0
        num_new = len(listing) if is_made_anew else int((~state.found).sum())
        check_free_space(num_new, old.image, [place.units])
        _judge(catalog, files, old, place, engine, max_rejected=config.max_rejected)
        check_verdicts(catalog, max_rejected=config.max_rejected, place=place)
        changes = find_changes(old, catalog, state, known)
        num_reappeared = len(state.gone_labels) - changes.num_gone
        check_gone(old, listing, state, max_gone=config.max_gone, num_reappeared=num_reappeared)
        if is_made_anew or differs(old, catalog, state, known):
            assembled = _write(catalog, old, state, place, engine, is_made_anew=is_made_anew)
        else:
            assign_splits(catalog, old.split_rule, engine)  # For the findings on splits.
            if state.has_other_state:
                _write_states(listing, old, place)
            place.remove()
            assembled = Assembled(old, 0)
    num_read, secs = int(files.sum()), time.monotonic() - began
    return summarize(catalog, assembled, num_read=num_read, seconds=secs, changes=changes)


def _write(
    catalog: Catalog,
    old: DatasetInfo,
    state: PreviousState,
    place: StagingArea,
    engine: Engine,
    *,
    is_made_anew: bool,
) -> Assembled:
    """Replaces `old` by a new dataset. Unchanged shards are not written again."""
    previous = None if is_made_anew else PreviousShards(old, catalog)
    versions = writer_versions()
    if previous is not None:
        versions = old.versions if previous.holds_all else mixed(old.versions, versions)
    assembled = assemble(
        catalog,
        place,
        engine,
        display_names=_display_names(old, catalog.listing),
        judging=old.judging,
        split_rule=old.split_rule,
        shard_bytes=old.shard_bytes,
        versions=versions,
        layout=old.layout,
        find_look_alikes=old.find_look_alikes,
        previous=previous,
    )
    place.replace((*old.shards, *DESCRIPTIONS))
    return assembled


def _write_states(listing: Listing, old: DatasetInfo, place: StagingArea) -> None:
    """Replaces the states of the source files in `old`: files with the same content have other times or inodes."""
    write_source_states(place.dataset / SOURCE_STATE, listing.states, old.manifest_sha256)
    try:
        replace_in(place.data, place.dataset / SOURCE_STATE)
    except OSError as error:
        # The dataset is complete without it.
        logger.warning(
            "%s: not written: %s; the next update reads every file again",
            old.data_dir / SOURCE_STATE,
            error.strerror,
        )


def warn_of_versions(old: DatasetInfo, *, rehash: bool) -> bool:
    """Logs which decoder versions differ from those that made `old`; returns whether any do."""
    differences = differing(old.versions, writer_versions())
    if differences and not rehash:
        logger.warning(
            "%s: was made with %s; its records are kept as they are and new ones may have other bytes than a build "
            "from scratch gives; --rehash makes all anew",
            old.data_dir,
            differences,
        )
    return bool(differences)


def scan_again(config: UpdateConfig, old: DatasetInfo, *, spool: Path | None) -> Listing:
    """Lists the files of the source as the build of `old` did.

    Raises:
        ConfigError: The table of labels is missing, or one is given although `old` was built without.
    """
    if old.layout.has_table != (config.labels is not None):
        raise ConfigError(
            f"{old.data_dir}: its classes came from a table; give it again with --labels FILE.csv"
            if old.layout.has_table
            else f"{old.data_dir}: its classes came from folders; leave out --labels"
        )
    return scan_folder(
        config.images,
        class_names_of(old),
        layout=old.layout,
        labels=config.labels,
        max_missing=config.max_rejected,
        spool=spool,
    )


def _options(config: UpdateConfig) -> dict[str, object]:
    return {"command": "update", "IMAGES": str(config.images.resolve())}


def _check_nothing_else_there(old: DatasetInfo) -> None:
    """Checks that a folder that will be removed contains no other files."""
    own = {*old.shards, *DESCRIPTIONS}
    names = [shown(path.name) for path in sorted(old.data_dir.iterdir()) if path.name not in own]
    if others := [name for name in names if not is_clutter(name)]:
        more = ", ..." if len(others) > _MAX_SHOWN else ""
        raise DatasetError(
            f"{old.data_dir}: holds files that are not part of the dataset and would be lost with it: "
            f"{', '.join(others[:_MAX_SHOWN])}{more}; move them elsewhere; `shardstream-ingest verify` lists them"
        )


def class_names_of(old: DatasetInfo) -> tuple[str, ...]:
    """Returns the explicit class order; empty if classes are sorted by name, so that a new class can be added."""
    return () if list(old.class_names) == sorted(old.class_names) else old.class_names


def _display_names(old: DatasetInfo, listing: Listing) -> tuple[str, ...]:
    if old.display_names == old.class_names:
        return listing.class_names
    if listing.class_names != old.class_names:
        raise ConfigError(
            f"{listing.root}: its categories are now {' '.join(listing.class_names)}, and nothing says what people are "
            "to be shown for the new ones; make the dataset anew with `shardstream-ingest build --display-names`"
        )
    return old.display_names


def _judge(
    catalog: Catalog,
    files: npt.NDArray[np.bool_],
    old: DatasetInfo,
    place: StagingArea,
    engine: Engine,
    *,
    max_rejected: float,
) -> None:
    """Processes `files`, bool [files], and all other files that are now kept but have no record."""
    known = catalog.digests.copy()
    while True:
        if files.any():
            rows = np.flatnonzero(files).astype(np.uint32)
            plan = MapPlan(catalog.listing, rows, judging=old.judging, folder=place.units, known=known)
            process_files(catalog, plan, engine, max_rejected=max_rejected, place=place)
        else:
            settle_identical(catalog)
        # A former duplicate has no record, and is kept if its original was removed.
        files = catalog.kept() & (catalog.lengths == 0)
        known[:] = 0
        if not files.any():
            return
