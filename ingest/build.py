"""Category folders to a dataset folder: the whole job."""

import dataclasses
import itertools
import time
from collections.abc import Sequence

from ingest.catalog import Catalog, assign_splits, load_catalog, rejected_files, rejection_reasons
from ingest.config import BuildConfig
from ingest.engine import run_all
from ingest.errors import ConfigError, DatasetError, LimitError
from ingest.manifest import FILENAME as MANIFEST
from ingest.manifest import write_manifest
from ingest.metadata import DatasetInfo, ShardInfo, SplitInfo
from ingest.progress import progress
from ingest.scan import Listing, scan_folder
from ingest.shards import ShardSpec, plan_shards, write_shard
from ingest.splits import SPLIT_NAMES, TRAIN
from ingest.tfds_files import dataset_name, dataset_version, write_tfds_files
from ingest.units import Unit, judge_unit, judge_unit_file_by_file, plan_units
from ingest.workplace import open_workplace

_MAX_REJECTED_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build came to.

    Attributes:
        info: The dataset.
        rejections: The number of rejected files by reason.
        rejected: Path and reason of the first few of them.
        passed_over: The number of files that were not looked at, by reason.
        source_bytes: The size of all files that were judged.
        seconds: How long it took.
    """

    info: DatasetInfo
    rejections: dict[str, int]
    rejected: list[tuple[str, str]]
    passed_over: dict[str, int]
    source_bytes: int
    seconds: float


def build_dataset(config: BuildConfig) -> BuildResult:
    """Writes the photos in `config.images` as a dataset into `config.data`.

    All work happens in `DATA.incomplete`, which takes the name DATA in one rename at the end. Killed before, the
    same call goes on with what was judged.

    Raises:
        ConfigError, DatasetError: The input cannot be used; nothing is left but `DATA.incomplete`.
        LimitError: More files were rejected than `config.max_rejected` allows.
        MachineError: The disk is full, or a worker process died for no file's fault.
    """
    began = time.monotonic()
    _check_target(config)
    listing = scan_folder(config.images, config.class_names)
    display_names = _display_names(config, listing)
    with open_workplace(config.data, _map_options(config), restart=config.restart) as place:
        units = list(
            plan_units(listing, image=config.image, max_pixels=config.max_pixels, folder=place.units)
        )
        _judge(units, listing, config)
        catalog = load_catalog(listing, units)
        _check_verdicts(catalog, config)
        assign_splits(catalog, config.fractions, seed=config.seed, groups=config.group_pattern)
        _check_splits(catalog, config)
        name = dataset_name(config.data.absolute())
        specs = plan_shards(
            catalog, place.dataset, name=name, seed=config.seed, shard_bytes=config.shard_bytes
        )
        shards = _write(specs, config)
        info = _describe(config, name, display_names, catalog, specs, shards)
        write_tfds_files(info, place.dataset, version=dataset_version(config.data.absolute()))
        write_manifest(catalog, place.dataset / MANIFEST)
        info.save(place.dataset)  # Last: a folder with metadata.json is complete.
        rejections = dict(rejection_reasons(catalog).most_common())
        rejected = list(itertools.islice(rejected_files(catalog), _MAX_REJECTED_SHOWN))
        place.finish()
    return BuildResult(
        info=info,
        rejections=rejections,
        rejected=rejected,
        passed_over=dict(listing.passed_over),
        source_bytes=sum(file.size_bytes for file in listing),
        seconds=time.monotonic() - began,
    )


def _check_target(config: BuildConfig) -> None:
    if config.data.exists() or config.data.is_symlink():
        raise ConfigError(f"{config.data} exists already; remove it or choose another name")


def _map_options(config: BuildConfig) -> dict[str, object]:
    """Returns what decides the verdicts and the stored pictures."""
    return {
        "IMAGES": str(config.images.resolve()),
        "--image-size": config.image_size,
        "--resize": config.resize,
        "--encoding": config.encoding,
        "--quality": config.quality,
        "--max-pixels": config.max_pixels,
    }


def _display_names(config: BuildConfig, listing: Listing) -> tuple[str, ...]:
    names = config.display_names or listing.class_names
    if len(names) != len(listing.class_names):
        raise ConfigError(
            f"--display-names has {len(names)} names for {len(listing.class_names)} classes: "
            f"{' '.join(listing.class_names)}"
        )
    return names


def _judge(units: Sequence[Unit], listing: Listing, config: BuildConfig) -> None:
    with progress("judging", len(listing), "files") as advance:
        for num_files in run_all(judge_unit, units, workers=config.workers, alone=judge_unit_file_by_file):
            advance(num_files)


def _check_verdicts(catalog: Catalog, config: BuildConfig) -> None:
    rejected = catalog.counts["rejected"]
    if rejected > config.max_rejected * len(catalog.listing):
        path, reason = next(iter(rejected_files(catalog)))
        raise LimitError(
            f"{rejected} of {len(catalog.listing)} files were rejected, more than --max-rejected "
            f"{config.max_rejected:g} allows; the first is {path}: {reason}. Mend or remove them, or raise the "
            f"limit: the work done so far is kept and used again"
        )
    kept = catalog.labels[catalog.kept()]
    for label, name in enumerate(catalog.listing.class_names):
        if not (kept == label).any():
            raise DatasetError(
                f"{config.images}: category {name!r} has no usable photo; {_what_became(catalog, label)}"
            )


def _what_became(catalog: Catalog, label: int) -> str:
    counts = catalog.verdict_counts(catalog.labels == label)
    found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"its files: {found}"


def _check_splits(catalog: Catalog, config: BuildConfig) -> None:
    num_kept = int(catalog.kept().sum())
    for split in SPLIT_NAMES:
        fraction = 1 - sum(config.fractions.values()) if split == TRAIN else config.fractions[split]
        if fraction > 0 and not sum(catalog.class_counts(split)):
            raise DatasetError(
                f"{config.images}: split {split!r} would be empty: a share of {fraction:g} of {num_kept} photos; "
                f"add photos, change the shares, or choose another --seed"
            )


def _write(specs: Sequence[ShardSpec], config: BuildConfig) -> dict[str, ShardInfo]:
    """Returns the description of each shard by the name of its file."""
    shards: dict[str, ShardInfo] = {}
    with progress("writing", sum(len(spec.labels) for spec in specs), "records") as advance:
        for shard in run_all(write_shard, specs, workers=config.workers, alone=write_shard):
            shards[shard.filename] = shard
            advance(shard.num_examples)
    return shards


def _describe(
    config: BuildConfig,
    name: str,
    display_names: tuple[str, ...],
    catalog: Catalog,
    specs: Sequence[ShardSpec],
    shards: dict[str, ShardInfo],
) -> DatasetInfo:
    splits = {
        split: SplitInfo(
            name=split,
            shards=tuple(shards[spec.path.name] for spec in specs if spec.split == split),
            class_counts=catalog.class_counts(split),
        )
        for split in SPLIT_NAMES
        if sum(catalog.class_counts(split))  # TFDS cannot read a split that is empty.
    }
    return DatasetInfo(
        data_dir=config.data,
        name=name,
        class_names=catalog.listing.class_names,
        display_names=display_names,
        seed=config.seed,
        fractions=config.fractions,
        keep_together=config.keep_together,
        image=config.image,
        splits=splits,
        verdicts=catalog.counts,
    )
