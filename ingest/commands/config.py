"""The options of shardstream-ingest: one frozen, self-validating dataclass per command."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from shardstream.ingest.commands.layout_options import LayoutOptions, TableOption
from shardstream.ingest.common.byte_size import parse_size
from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.split_hash import check_fractions
from shardstream.ingest.dataset.wrong_folder import is_dataset
from shardstream.ingest.execution.factory import EngineName
from shardstream.ingest.images.settings import (
    MAX_STORED_SIZE,
    Check,
    Encoding,
    ImageSettings,
    ProcessingSettings,
    Resize,
)
from shardstream.ingest.pipeline.split_assignment import group_pattern

_JOB_OPTIONS = ("workers", "work_dir", "max_rejected", "restart", "engine", "scheduler")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders:
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """The folder whose sub-folders are the classes, or a .zip or .tar of it."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""

    def __post_init__(self) -> None:
        images, data = self.images.resolve(), self.data.resolve()
        if is_dataset(self.images):
            is_swapped = self.data.exists() and not is_dataset(self.data)
            hint = (
                f"swap them: {self.data} {self.images}"
                if is_swapped
                else f"train from it with `shardstream-train {self.images} --run RUN`"
            )
            raise ConfigError(
                f"IMAGES ({self.images}) is already a dataset folder, expected source images; {hint}"
            )
        if self.data.name in {"", ".."}:
            hint = f": write {data}" if data.name else ""
            raise ConfigError(
                "DATA has to end in a name, as temporary files are written beside it under that name; got "
                f"{self.data}{hint}"
            )
        if data.is_relative_to(images):
            raise ConfigError(
                f"DATA ({self.data}) lies inside of IMAGES ({self.images}); choose a path outside of it"
            )
        if images.is_relative_to(data):
            raise ConfigError(
                f"IMAGES ({self.images}) lies inside of DATA ({self.data}), whose place a new dataset takes as a "
                "whole; choose a path outside of it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Running:
    workers: int = dataclasses.field(default_factory=usable_cores)
    """Number of processes; the dataset is byte-identical for any number."""
    engine: EngineName = "local"
    """local: processes on this machine; dask: Dask distributed (docs/cluster.md)."""
    scheduler: str = ""
    """With --engine dask: the address of a running scheduler, such as tcp://host:8786; without it a cluster is started
    on this machine."""
    json: bool = False
    """Print the result as JSON."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "--workers", "positive", self.workers)
        if self.scheduler and self.engine != "dask":
            raise ConfigError("--scheduler goes with --engine dask alone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job(_Running):
    work_dir: Path | None = None
    """Where work in progress is kept until the dataset is complete, such as a local disk if DATA is on a slow one; by
    default DATA.incomplete. It needs as much space as the dataset."""
    max_rejected: float = 0.01
    """The largest fraction of files that may be rejected; above it nothing is written, and the exit code is 3."""
    restart: bool = False
    """Remove what a killed job left, instead of resuming it."""
    dry_run: bool = False
    """Process a few files, estimate time and size, write nothing."""

    @property
    def work_folders(self) -> list[Path]:
        """The folders for work in progress, besides DATA.incomplete."""
        return [self.work_dir] if self.work_dir else []

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.max_rejected <= 1, "--max-rejected", "a fraction from 0 to 1", self.max_rejected)


def _check_work_dir(config: "BuildConfig | UpdateConfig") -> None:
    if config.work_dir is None:
        return
    for name, folder in (("IMAGES", config.images), ("DATA", config.data)):
        if config.work_dir.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--work-dir {config.work_dir} lies inside of {name} ({folder}); put it elsewhere"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decisions:
    class_names: tuple[str, ...] = ()
    """The class names in label order; by default the names of the sub-folders, sorted."""
    display_names: tuple[str, ...] = ()
    """What people see for each class, in the order of the classes, such as: 음식 실내 실외."""
    validation: float = 0.2
    """The fraction of images held out to evaluate the model during training."""
    test: float = 0.0
    """The fraction of images held out for a final evaluation."""
    keep_together: str = "duplicates"
    """What stays in one split. "duplicates": identical files, which always do. "near-duplicates": similar images too.
    Or a regular expression on the path of each file inside IMAGES, such as "/(\\d+)_": files with the same first group
    (photos of one house, of one patient); where it does not match, the content of the image decides. Of splits that
    are given, only what is held out of the training images is affected."""
    stratify: bool = False
    """Give every class exactly these fractions; but then a new or removed file can move others to another split."""
    seed: int = 123
    """Decides which images are held out. Files that are added, removed or renamed move no other image."""
    image_size: int | Literal["original"] = 300
    """Height and width in pixels of the stored images; best the size to train at. "original" keeps the size of each
    image, and its own bytes where they are clean: larger, and several times slower to train from."""
    resize: Resize = "stretch"
    """How an image becomes square: stretched, its center cropped, or padded with black."""
    encoding: Encoding = "jpeg"
    """The format of images that cannot keep their own bytes; raw is 7 times larger and needs no decoding."""
    quality: int = 95
    """JPEG quality, 1 to 100. 90 is a third smaller and faster to read."""
    check: Check = "full"
    """full: decode every image completely. header: read its header only, which is faster, requires
    --image-size original, finds no near-duplicates, and lets corrupt images through, which fail in training."""
    max_pixels: int = 130_000_000
    """Images with more pixels are rejected before they are decoded (decompression bombs)."""
    shard_size: str = "128MiB"
    """The approximate size of a shard, such as 64MiB or 1GB."""
    find_look_alikes: bool = True
    """Do not search for similar images in different splits, here and in each update. The search takes half a
    minute for ten million images, and 40 bytes of memory each."""

    def __post_init__(self) -> None:
        check_fractions(self.fractions)
        _check(
            self.image_size == "original" or 1 <= self.image_size <= MAX_STORED_SIZE,
            "--image-size",
            f"original or 1 to {MAX_STORED_SIZE:,}",
            self.image_size,
        )
        _check(1 <= self.quality <= 100, "--quality", "1 to 100", self.quality)
        _check(self.max_pixels >= 1, "--max-pixels", "positive", self.max_pixels)
        _check(self.shard_bytes >= 1 << 10, "--shard-size", "at least 1KiB", self.shard_size)
        group_pattern(self.keep_together)  # Validates it early.
        if self.encoding == "raw" and self.image_size == "original":
            raise ConfigError(
                "--encoding raw needs an --image-size: raw images of different sizes cannot be decoded"
            )
        if self.check == "header" and (
            self.image_size != "original" or self.keep_together == "near-duplicates"
        ):
            raise ConfigError(
                "--check header does not go with --image-size N or --keep-together near-duplicates: both need the "
                "complete image"
            )
        if self.stratify and self.keep_together != "duplicates":
            raise ConfigError(
                f"--stratify does not go with --keep-together {self.keep_together}: fractions cannot be exact where "
                "groups stay whole"
            )
        for option, names in (("--class-names", self.class_names), ("--display-names", self.display_names)):
            if len(set(names)) < len(names):
                raise ConfigError(f"{option} {' '.join(names)}: a name is there twice")
            if not all(name.strip() for name in names):
                raise ConfigError(f"{option}: a name is empty")
        if self.display_names and self.class_names and len(self.display_names) != len(self.class_names):
            raise ConfigError(
                f"--display-names has {len(self.display_names)} names, --class-names has {len(self.class_names)}"
            )

    @property
    def fractions(self) -> dict[str, float]:
        """The fractions of the held-out splits, by name."""
        return {"validation": float(self.validation), "test": float(self.test)}

    @property
    def judging(self) -> ProcessingSettings:
        """How files are processed and images stored."""
        size = None if self.image_size == "original" else self.image_size
        image = ImageSettings(size=size, resize=self.resize, encoding=self.encoding, quality=self.quality)
        return ProcessingSettings(image=image, check=self.check, max_pixels=self.max_pixels)

    @property
    def split_rule(self) -> SplitRule:
        """The rule that assigns images to splits."""
        return SplitRule(
            seed=self.seed,
            fractions=self.fractions,
            keep_together=self.keep_together,
            stratify=self.stratify,
        )

    @property
    def shard_bytes(self) -> int:
        """The approximate size of a shard in bytes."""
        return parse_size("--shard-size", self.shard_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig(_Job, _Decisions, LayoutOptions, _Folders):
    """Writes the images of class folders as a dataset of sharded TFRecords.

    IMAGES has a sub-folder for each class (IMAGES/food/..., IMAGES/interior/...), or is a .zip or .tar of such folders.
    Images in train/ and val/ folders need --splits-from-folders, labels in a table --labels. Every file is read once
    and is ok, repaired, duplicate, conflict or rejected in DATA/manifest.parquet. After a kill the same
    command resumes.

        shardstream-ingest build photos data/photos --class-names food interior exterior
    """

    option_groups: ClassVar = {
        "splits": (
            *("validation", "test", "seed", "keep_together", "stratify", "splits_from_folders"),
            "find_look_alikes",
        ),
        "classes and files": (
            *("class_names", "display_names", "class_depth", "exclude", "include", "follow_links"),
            *("labels", "path_column", "label_column", "split_column"),
        ),
        "stored images": (
            *("image_size", "resize", "encoding", "quality", "check", "max_pixels", "shard_size"),
        ),
        "job": _JOB_OPTIONS,
        "output": ("dry_run", "json"),
    }

    def __post_init__(self) -> None:
        for part in (_Folders, LayoutOptions, _Decisions, _Job):
            part.__post_init__(self)
        if self.stratify and 1 in (self.validation, self.test):
            raise ConfigError(
                "--stratify leaves an image of each class to train on; --validation 1 and --test 1 leave none"
            )
        if self.stratify and (self.splits_from_folders or self.split_column):
            raise ConfigError("--stratify does not go with splits that are given: they are kept as they are")
        _check_work_dir(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateConfig(_Job, TableOption, _Folders):
    """Updates a dataset from its source folder: byte-identical to a new build, with a fraction of its work.

    Only files that are new, or whose size, times or inode changed, are read; other records are copied. The options
    are those that DATA was built with. DATA can be read meanwhile and is replaced atomically.

        shardstream-ingest update photos data/photos
    """

    option_groups: ClassVar = {
        "changes": ("max_gone", "allow_class_changes", "rehash", "labels"),
        "job": _JOB_OPTIONS,
        "output": ("dry_run", "json"),
    }

    rehash: bool = False
    """Read every file and compare contents instead of size, times and inode; after a change of decoder versions,
    rebuild all records."""
    max_gone: float = 0.1
    """The largest fraction of the files of the dataset that may be missing, from 0 to 1: IMAGES may be half-synced."""
    allow_class_changes: bool = False
    """Continue when classes are removed or get other label numbers, which trained models rely on."""

    def __post_init__(self) -> None:
        for part in (_Folders, _Job):
            part.__post_init__(self)
        _check_work_dir(self)
        _check(0 <= self.max_gone <= 1, "--max-gone", "a fraction from 0 to 1", self.max_gone)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepairConfig(_Running, TableOption, _Folders):
    """Rebuilds the corrupt or missing shards that `verify` finds from their source images.

    The result is byte-identical to the original. Exit code 1 if something cannot be repaired because images changed.
    Files that look like shards but do not belong to DATA are listed and left in place.

        shardstream-ingest repair photos data/photos
    """

    def __post_init__(self) -> None:
        for part in (_Folders, _Running):
            part.__post_init__(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """Reads a dataset and lists what is corrupt, missing or does not belong to it. Exit code 1 if anything is."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    deep: bool = False
    """Decode every image as well."""
    workers: int = dataclasses.field(default_factory=usable_cores)
    """Number of processes."""
    json: bool = False
    """Print the result as JSON."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "--workers", "positive", self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig:
    """Shows the classes, splits and sizes of a dataset, and how many source files were used or rejected."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    json: bool = False
    """Print the result as JSON."""


def _check(right: bool, option: str, expected: str, found: object) -> None:
    if not right:
        raise ConfigError(f"{option} has to be {expected}, got {found}")
