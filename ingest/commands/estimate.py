"""Estimates the result of a build or an update from a sample of its files."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.commands.config import BuildConfig, UpdateConfig
from shardstream.ingest.commands.update import scan_again, warn_of_versions
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, TRAIN
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.images.settings import ProcessingSettings
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.map_tasks import MapPlan, process_task, process_task_in_parts
from shardstream.ingest.pipeline.results import VERDICTS
from shardstream.ingest.pipeline.reuse import load_previous
from shardstream.ingest.pipeline.scan import scan_folder
from shardstream.ingest.pipeline.steps import TASK_MODULES

_MAX_SAMPLED = 400


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The estimated result of a job. Duplicates are unknown until all files are read.

    Attributes:
        class_counts: The number of files by class.
        passed_over: The number of files that would be skipped, by reason.
        source_bytes: The total size of all files.
        num_read: The number of files that would be read.
        num_removed: For an update, the number of files of the dataset that were removed.
        classes_removed: For an update, the removed classes.
        num_sampled: The number of files that were read for the estimate.
        sampled_verdicts: The number of sampled files by verdict.
        splits: The approximate number of images of each split.
        num_bytes: The approximate size of all shards.
        seconds: The approximate time for reading; writing takes a fraction of it.
    """

    class_counts: dict[str, int]
    passed_over: dict[str, int]
    source_bytes: int
    num_read: int
    num_removed: int
    classes_removed: list[str]
    num_sampled: int
    sampled_verdicts: dict[str, int]
    splits: dict[str, int]
    num_bytes: int
    seconds: float


def estimate_build(config: BuildConfig) -> Estimate:
    """Returns the estimate for `build_dataset(config)`; writes only to a temporary folder."""
    with (
        open_engine(
            config.engine, workers=config.workers, scheduler=config.scheduler, preload=TASK_MODULES
        ) as engine,
        tempfile.TemporaryDirectory(dir=_shared_folder(config) or config.work_dir) as spool,
    ):
        listing = scan_folder(
            config.images,
            config.class_names,
            layout=config.layout,
            labels=config.labels,
            max_missing=config.max_rejected,
            spool=Path(spool) / "spool",
        )
        files = np.ones(len(listing), bool)
        return _estimate(listing, files, config.judging, config.fractions, engine, _shared_folder(config))


def estimate_update(config: UpdateConfig) -> Estimate:
    """Returns the estimate for `update_dataset(config)`; writes only to a temporary folder."""
    old = DatasetInfo.load(config.data)
    with (
        open_engine(
            config.engine, workers=config.workers, scheduler=config.scheduler, preload=TASK_MODULES
        ) as engine,
        tempfile.TemporaryDirectory(dir=_shared_folder(config) or config.work_dir) as spool,
    ):
        listing = scan_again(config, old, spool=Path(spool) / "spool")
        warn_of_versions(old, rehash=config.rehash)
        state = load_previous(Catalog(listing), old)
        files = np.ones(len(listing), bool) if config.rehash else ~state.same
        fractions, shared = old.split_rule.fractions, _shared_folder(config)
        estimate = _estimate(listing, files, old.judging, fractions, engine, shared)
    # Assumes that the same fraction of the unread files is kept as before.
    share = (~files).sum() / state.num_before
    splits = {name: split.num_examples for name, split in old.splits.items()}
    return dataclasses.replace(
        estimate,
        num_removed=len(state.gone_labels),
        classes_removed=[name for name in old.class_names if name not in listing.class_names],
        num_bytes=round(estimate.num_bytes + share * sum(split.num_bytes for split in old.splits.values())),
        splits={name: round(estimate.splits.get(name, 0) + share * splits[name]) for name in splits},
    )


def _shared_folder(config: BuildConfig | UpdateConfig) -> Path | None:
    """Returns the parent for temporary results: workers on other machines do not share this machine's /tmp."""
    if config.engine == "local":
        return None
    return config.work_dir or config.data.absolute().parent


def _estimate(
    listing: Listing,
    files: npt.NDArray[np.bool_],
    judging: ProcessingSettings,
    fractions: Mapping[str, float],
    engine: Engine,
    shared: Path | None,
) -> Estimate:
    rows = np.flatnonzero(files).astype(np.uint32)
    # Evenly spaced over all classes and folders.
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_MAX_SAMPLED, len(rows))).astype(np.intp))
    counts, num_bytes, seconds = _judge_sample(listing, rows[chosen], judging, engine, shared)
    scale = len(rows) / max(1, len(chosen))
    num_kept = round(scale * (counts["ok"] + counts["repaired"]))
    splits = {split: round(fraction * num_kept) for split, fraction in fractions.items()}
    splits[TRAIN] = num_kept - sum(splits.values())
    of_classes = np.bincount(listing.labels, minlength=len(listing.class_names)).tolist()
    return Estimate(
        class_counts=dict(zip(listing.class_names, of_classes, strict=True)),
        passed_over=dict(listing.skipped),
        source_bytes=int(listing.sizes.sum()),
        num_read=len(rows),
        num_removed=0,
        classes_removed=[],
        num_sampled=len(chosen),
        sampled_verdicts={verdict: count for verdict, count in counts.items() if count},
        splits={split: splits[split] for split in SPLIT_NAMES if splits.get(split)},
        num_bytes=round(scale * num_bytes),
        seconds=seconds / max(1, len(chosen)) * len(rows),
    )


def _judge_sample(
    listing: Listing,
    rows: npt.NDArray[np.uint32],
    judging: ProcessingSettings,
    engine: Engine,
    shared: Path | None,
) -> tuple[dict[str, int], int, float]:
    """Returns the number of files by verdict, the bytes of all records, and the time in seconds."""
    counts: dict[str, int] = dict.fromkeys(VERDICTS, 0)
    num_bytes = 0
    with tempfile.TemporaryDirectory(dir=shared, prefix=".shardstream-") as folder:
        # The first file warms up the processes, so that their start-up does not affect the measured rate.
        warm_up = MapPlan(listing, rows[:1], judging=judging, folder=Path(folder) / "first")
        list(engine.run_all(process_task, warm_up, alone=process_task_in_parts))
        began = time.monotonic()
        plan = MapPlan(listing, rows, judging=judging, folder=Path(folder))
        list(engine.run_all(process_task, plan, alone=process_task_in_parts))
        seconds = time.monotonic() - began
        for _, _, verdicts in plan.results():
            num_bytes += int(verdicts.table["num_bytes"].sum())
            for verdict in verdicts.table["verdict"].tolist():
                counts[VERDICTS[verdict]] += 1
    return counts, num_bytes, seconds
