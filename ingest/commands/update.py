"""A dataset brought up to date with its folders: what `build` would make now, without most of its work."""

import time

import numpy as np
import numpy.typing as npt

from shardstream.ingest.commands.config import UpdateConfig
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.pipeline.build_result import BuildResult, summarize
from shardstream.ingest.pipeline.catalog import Catalog, settle_identical
from shardstream.ingest.pipeline.map_tasks import MapPlan
from shardstream.ingest.pipeline.own_files import DESCRIPTIONS
from shardstream.ingest.pipeline.reuse import load_previous
from shardstream.ingest.pipeline.scan import Listing, is_clutter, scan_folder, shown
from shardstream.ingest.pipeline.split_assignment import assign_splits
from shardstream.ingest.pipeline.staging import StagingArea, open_staging
from shardstream.ingest.pipeline.steps import TASK_MODULES, assemble, check_verdicts, process_files

_MAX_SHOWN = 3


def update_dataset(config: UpdateConfig) -> BuildResult:
    """Makes of the dataset in `config.data` what a build from `config.images` would make, bit for bit.

    The old dataset stays as it is until the new one takes its place. Killed before, the same call goes on.

    Raises:
        ConfigError, DatasetError: The input cannot be used, or the old dataset is damaged.
        LimitError: More files were rejected than `config.max_rejected` allows.
        MachineError: The disk is full, the photos went away, or a worker process died for no file's fault.
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
        listing = scan_folder(config.images, class_names_of(old))
        catalog = Catalog(listing)
        taken = load_previous(catalog, old, engine)
        files = np.ones(len(listing), bool) if config.rehash else ~taken.same
        num_changed = _judge(catalog, files, old, place, engine)
        check_verdicts(catalog, max_rejected=config.max_rejected)
        if num_changed or taken.num_before != len(listing) or not taken.same.all():
            info = assemble(
                catalog,
                place,
                engine,
                display_names=_display_names(old, listing),
                judging=old.judging,
                split_rule=old.split_rule,
                shard_bytes=old.shard_bytes,
            )
            place.replace((*old.shards, *DESCRIPTIONS))
        else:
            info = old
            assign_splits(
                catalog, old.split_rule
            )  # Look-alikes in different splits are told of all the same.
            place.remove()
    return summarize(catalog, info, num_read=int(files.sum()), seconds=time.monotonic() - began)


def _options(config: UpdateConfig) -> dict[str, object]:
    return {"command": "update", "IMAGES": str(config.images.resolve())}


def _check_nothing_else_there(old: DatasetInfo) -> None:
    """Sees to it that nobody keeps anything else in a folder that is going to be removed."""
    own = {*old.shards, *DESCRIPTIONS}
    names = [shown(path.name) for path in sorted(old.data_dir.iterdir()) if path.name not in own]
    if others := [name for name in names if not is_clutter(name)]:
        more = ", ..." if len(others) > _MAX_SHOWN else ""
        raise DatasetError(
            f"{old.data_dir}: holds what is none of the dataset, and would go with it when a new one takes its place: "
            f"{', '.join(others[:_MAX_SHOWN])}{more}; move that elsewhere, or look with `shardstream-ingest verify`"
        )


def class_names_of(old: DatasetInfo) -> tuple[str, ...]:
    """Returns the order that the classes had; none where it was that of their names, which a new class may join."""
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
    catalog: Catalog, files: npt.NDArray[np.bool_], old: DatasetInfo, place: StagingArea, engine: Engine
) -> int:
    """Judges `files`, bool [files], and whatever comes to be kept without a record; returns how many had changed."""
    num_changed = 0
    known = catalog.digests.copy()
    while files.any():
        rows = np.flatnonzero(files).astype(np.uint32)
        plan = MapPlan(catalog.listing, rows, judging=old.judging, folder=place.units, known=known)
        num_changed += process_files(catalog, plan, engine)
        # What was a duplicate has no record, and is the one to keep once the other is gone.
        files = catalog.kept() & (catalog.lengths == 0)
        known[:] = 0
    settle_identical(catalog)
    return num_changed
