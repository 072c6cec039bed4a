"""The options of shardstream-ingest: one frozen dataclass for each command, which checks itself."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shardstream.ingest.commands.layout_options import LayoutOptions, TableOption
from shardstream.ingest.common.byte_size import parse_size
from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.split_hash import check_fractions
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders:
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """The folder whose sub-folders are the classes, or a .zip or .tar of it."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""

    def __post_init__(self) -> None:
        images, data = self.images.resolve(), self.data.resolve()
        if self.data.name in {"", ".."}:
            hint = f": write {data}" if data.name else ""
            raise ConfigError(
                f"DATA has to end in a name, as work in progress lies beside it under that name; got {self.data}{hint}"
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
    """How many processes work at once; the dataset is the same, byte for byte, for any number."""
    engine: EngineName = "local"
    """What the work runs on: processes of this machine, or Dask distributed (docs/cluster.md)."""
    scheduler: str = ""
    """With --engine dask: the address of a running cluster's scheduler, such as tcp://host:8786. Without it a cluster
    is started on this machine."""
    json: bool = False
    """Print the result as JSON."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "--workers", "positive", self.workers)
        if self.scheduler and self.engine != "dask":
            raise ConfigError("--scheduler goes with --engine dask alone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job(_Running):
    work_dir: Path | None = None
    """Where work in progress lies until the dataset is whole, such as a local disk where DATA is on a slow one; in
    DATA.incomplete if not given. It takes as much space as the dataset."""
    max_rejected: float = 0.01
    """The largest share of files that may be rejected. With more of them nothing is made, and the exit code is 3."""
    restart: bool = False
    """Throw away what a killed run left, instead of going on with it."""
    dry_run: bool = False
    """Judge some files, say what would be made and how long it would take, and make nothing."""

    @property
    def work_folders(self) -> list[Path]:
        """The folders of work in progress, besides DATA.incomplete."""
        return [self.work_dir] if self.work_dir else []

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.max_rejected <= 1, "--max-rejected", "a share from 0 to 1", self.max_rejected)


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
    """The categories in label order. They have to be the names of the sub-folders. Sorted by name if not given."""
    display_names: tuple[str, ...] = ()
    """What people are shown for each class, in the order of the classes, such as: 음식 실내 실외."""
    validation: float = 0.2
    """The share of pictures held out to judge the model by while it trains."""
    test: float = 0.0
    """The share of pictures held out for a last judgement."""
    keep_together: str = "duplicates"
    """What goes to the same split. "duplicates": identical files, which always do. "near-duplicates": also pictures
    that look alike. Or a regular expression on each file's path inside IMAGES, such as "/(\\d+)_": files with the
    same first group (photos of one house, of one patient); where it does not match, a picture goes by its content."""
    stratify: bool = False
    """Give each class these shares exactly. The price: a photo that comes or goes can move others to another split."""
    seed: int = 123
    """Decides which pictures are held out. Files that come, go or are renamed move no other picture."""
    image_size: int | Literal["original"] = 300
    """Height and width in pixels that pictures are stored at; best the size to train at. "original" keeps each
    picture's own size, and its own bytes where they are clean: larger and several times slower to train from."""
    resize: Resize = "stretch"
    """How a picture becomes square: its shape ignored, its middle taken, or black bands added."""
    encoding: Encoding = "jpeg"
    """What pictures that cannot keep their own bytes are stored as; raw is 7 times larger and needs no decoding."""
    quality: int = 95
    """JPEG quality, 1 to 100. 90 is a third smaller and faster to read."""
    check: Check = "full"
    """How closely a picture is looked at: decoded to the end, or its header alone. "header" is quicker, goes with
    --image-size original, finds no pictures that look alike, and lets damaged ones pass, to fail in training."""
    max_pixels: int = 130_000_000
    """A picture that says it has more is rejected before it is decoded: some files lie to fill the memory."""
    shard_size: str = "128MiB"
    """About how large each file becomes: such as 64MiB or 1GB."""

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
        group_pattern(self.keep_together)  # So that a mistake in it is found here.
        if self.encoding == "raw" and self.image_size == "original":
            raise ConfigError(
                "--encoding raw needs an --image-size: raw pictures of differing size cannot be told apart"
            )
        if self.check == "header" and (
            self.image_size != "original" or self.keep_together == "near-duplicates"
        ):
            raise ConfigError(
                "--check header does not go with --image-size N or --keep-together near-duplicates: both need the "
                "whole picture"
            )
        if self.stratify and self.keep_together != "duplicates":
            raise ConfigError(
                f"--stratify does not go with --keep-together {self.keep_together}: shares cannot be exact where "
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
        """The shares of the held-out splits, by name."""
        return {"validation": float(self.validation), "test": float(self.test)}

    @property
    def judging(self) -> ProcessingSettings:
        """How files are judged and pictures stored."""
        size = None if self.image_size == "original" else self.image_size
        image = ImageSettings(size=size, resize=self.resize, encoding=self.encoding, quality=self.quality)
        return ProcessingSettings(image=image, check=self.check, max_pixels=self.max_pixels)

    @property
    def split_rule(self) -> SplitRule:
        """What decides the splits."""
        return SplitRule(
            seed=self.seed,
            fractions=self.fractions,
            keep_together=self.keep_together,
            stratify=self.stratify,
        )

    @property
    def shard_bytes(self) -> int:
        """The size of a shard."""
        return parse_size("--shard-size", self.shard_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig(_Job, _Decisions, LayoutOptions, _Folders):
    """Turns class folders of images into a dataset of sharded TFRecords.

    IMAGES has a sub-folder for each class (IMAGES/food/..., IMAGES/interior/...), or is a .zip or .tar of such; images
    that are split already, or have their labels in a table: --splits-from-folders, --labels. DATA is made new.
    Every file is opened once and judged: ok, repaired, duplicate, conflict or rejected (see DATA/manifest.parquet).
    Killed, the same command goes on where it was.

        shardstream-ingest build photos data/photos --class-names food interior exterior
    """

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
    """Brings a dataset up to date with its folders: the same bytes as a build from scratch, without most of its work.

    Only files that are new or have another size or time than in DATA/manifest.parquet are read; the others' records
    are copied. How DATA was built decides how it is updated. It can be read all the while, and is replaced at once.

        shardstream-ingest update photos data/photos
    """

    rehash: bool = False
    """Read every file, and compare its content instead of its size and time; after another version of a decoder was
    installed, make all records anew."""
    max_gone: float = 0.1
    """The largest fraction of the dataset's files that may be gone, from 0 to 1: the folder may be half-synced."""
    allow_class_changes: bool = False
    """Go on where classes are gone, or would get other label numbers: trained models rely on those."""

    def __post_init__(self) -> None:
        for part in (_Folders, _Job):
            part.__post_init__(self)
        _check_work_dir(self)
        _check(0 <= self.max_gone <= 1, "--max-gone", "a fraction from 0 to 1", self.max_gone)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepairConfig(_Running, TableOption, _Folders):
    """Makes what `verify` finds bad again: those shards alone, out of the photos they were made of.

    DATA then has the bytes that it had. Exit code 1 if something cannot be repaired because photos changed.
    Files that look like shards and are none of DATA's are named and left where they are.

        shardstream-ingest repair photos data/photos
    """

    def __post_init__(self) -> None:
        for part in (_Folders, _Running):
            part.__post_init__(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """Reads a dataset through and names all that is damaged, missing or foreign. Exit code 1 if anything is."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    deep: bool = False
    """Decode every picture as well."""
    workers: int = dataclasses.field(default_factory=usable_cores)
    """How many processes work at once."""
    json: bool = False
    """Print the result as JSON."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "--workers", "positive", self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig:
    """Says what a dataset holds: classes, splits, sizes, and what became of the source files."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    json: bool = False
    """Print the result as JSON."""


def _check(right: bool, option: str, expected: str, found: object) -> None:
    if not right:
        raise ConfigError(f"{option} has to be {expected}, got {found}")
