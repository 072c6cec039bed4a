"""TFDS folders: TFRecord datasets written by other programs and readable by `tensorflow_datasets`.

The metadata is parsed by `tensorflow_datasets`; byte offsets and labels come from a scan of the shards of the splits in
use (`tfds_index`). If there is no validation split, one is held out.
"""

import dataclasses
import hashlib
import json
import logging
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.records import FRAMING_BYTES
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings
from shardstream.train.data.held_out import hold_out
from shardstream.train.data.split_index import SplitIndex
from shardstream.train.data.tfds_description import (
    DATASET_INFO,
    FEATURES,
    TfdsDescription,
    read_description,
    read_split_names,
)
from shardstream.train.data.tfds_index import NO_LABEL, REPAIR_HINT, check_labels, labels_of, load_rows

logger = logging.getLogger(__name__)

# Names of a validation split, most common first. A test split is used if there is no other.
_VALIDATION_NAMES = ("validation", "val", "valid", "dev")
_FALLBACK = "test"
# The splits used in training.
_TRAINING_SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TfdsInfo(DatasetInfo):
    """Metadata of a TFDS folder.

    The `class_counts` in `splits` are empty, as only a scan of the shards can count them: `split(name)` has them. In a
    split that is a subset of its files, `num_examples` of a shard counts only that subset.

    Attributes:
        image_feature: Name of the feature of the image.
        label_feature: Name of the feature of the label.
        filename_feature: Name of the feature of the file name, if there is one.
        cache_dir: Where the indexes of splits are kept.
        files: The complete shards of each split, by split name.
        selected: int64 [num_examples] by split: the records of its files that belong to it; all if there is no entry.
        held_out: Fraction and seed of the validation split that was held out of the train split, or None.
    """

    image_feature: str
    label_feature: str
    filename_feature: str | None
    cache_dir: Path
    files: Mapping[str, tuple[ShardInfo, ...]]
    selected: Mapping[str, np.ndarray] = dataclasses.field(compare=False, repr=False)
    held_out: tuple[float, int] | None
    _rows: dict[tuple[ShardInfo, ...], np.ndarray] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    _fingerprints: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @property
    def image_key(self) -> str:
        """The feature of an Example that holds the image."""
        return self.image_feature

    @property
    def label_key(self) -> str:
        """The feature of an Example that holds the label."""
        return self.label_feature

    @property
    def filename_key(self) -> str | None:
        """The feature of an Example that holds the file name, if there is one."""
        return self.filename_feature

    @property
    def remedy(self) -> str:
        """How to repair corruption."""
        return REPAIR_HINT

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that training sees; scans the train and validation splits.

        Other splits contribute only their sizes, so they need no scan.
        """
        if not self._fingerprints:
            self._fingerprints.append(self._compute_fingerprint())
        return self._fingerprints[0]

    def split(self, name: str) -> SplitInfo:
        """Returns the split called `name`, with class counts, after scanning its shards.

        Raises:
            DatasetError: There is no such split, or a shard is corrupt.
        """
        # Not `super()`: the dataclass is recreated for its slots, and the call would refer to the old class.
        split, labels = DatasetInfo.split(self, name), labels_of(self.index(name))
        counts = np.bincount(labels[labels != NO_LABEL], minlength=self.num_classes)
        return dataclasses.replace(split, class_counts=tuple(counts.tolist()))

    def index(self, name: str) -> SplitIndex:
        """Returns the index of the records of a split, with or without labels, which are a field of its rows.

        Raises:
            DatasetError: There is no such split, or a shard is corrupt.
        """
        DatasetInfo.split(self, name)
        shards = self.files[name]
        if shards not in self._rows:
            self._rows[shards] = load_rows(
                self.data_dir, shards, self.label_key, self.num_classes, cache_dir=self.cache_dir
            )
        return SplitIndex(
            name=name,
            data_dir=self.data_dir,
            shards=shards,
            records=self._rows[shards],
            selected=self.selected.get(name),
            repair_hint=REPAIR_HINT,
        )

    def _compute_fingerprint(self) -> str:
        splits: dict[str, list[object]] = {}
        for name, split in self.splits.items():
            splits[name] = [(shard.num_examples, shard.num_bytes) for shard in split.shards]
            if name in _TRAINING_SPLITS:
                checksums = np.ascontiguousarray(self.index(name).records["checksum"])
                splits[name].append(hashlib.sha256(checksums.data).hexdigest())
        content = {
            "class_names": self.class_names,
            "image": dataclasses.asdict(self.image),
            "splits": splits,
            "held_out": self.held_out,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_tfds_folder(data_dir: Path) -> bool:
    """Returns whether `data_dir` is a TFDS folder that we did not write: ours have a metadata.json as well."""
    if not (data_dir / DATASET_INFO).is_file() or not (data_dir / FEATURES).is_file():
        return False
    try:
        metadata = json.loads((data_dir / METADATA).read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False
    # TFDS builders write a metadata.json of their own.
    return isinstance(metadata, dict) and "format_version" not in metadata


def load_tfds_folder(
    data_dir: Path, cache_dir: Path, *, validation_share: float | None = None, seed: int = 123
) -> TfdsInfo:
    """Returns the metadata of a TFDS folder. The shards of a split are scanned when it is used.

    Args:
        data_dir: The folder.
        cache_dir: Where the offsets and labels from scans are cached.
        validation_share: Fraction of the train split to hold out, if there is no validation split.
        seed: Seed of the held-out records.

    Raises:
        ConfigError: `validation_share` is missing, not needed, or not between 0 and 1.
        DatasetError: The folder is not a dataset with one image and one label in each record, or is corrupt.
    """
    if validation_share is not None and not 0 < validation_share < 1:
        raise ConfigError(f"validation_share must be above 0 and below 1, got {validation_share}")
    # Check before slow imports.
    _check_validation(data_dir, read_split_names(data_dir), validation_share)
    description = read_description(data_dir)
    files = {
        name: _stat_shards(data_dir, lengths)
        for name, lengths in description.shard_lengths.items()
        if any(lengths.values())
    }
    _check_validation(data_dir, files, validation_share)
    selected: dict[str, np.ndarray] = {}
    if validation_share is not None:
        is_held_out = hold_out(list(description.shard_lengths["train"].values()), validation_share, seed)
        files["validation"] = files["train"]
        selected = {"train": np.flatnonzero(~is_held_out), "validation": np.flatnonzero(is_held_out)}
        if not all(map(len, selected.values())):
            raise DatasetError(
                f"{data_dir}: validation_share {validation_share} of {len(is_held_out)} records leaves a split empty"
            )
    elif (name := _validation_name(files)) not in (None, "validation"):
        logger.info("%s: the split %r is used for validation", data_dir, name)
        files["validation"] = files[name]
    return _make_info(
        data_dir,
        cache_dir,
        description,
        files,
        selected,
        None if validation_share is None else (validation_share, seed),
    )


def open_tfds_index(info: TfdsInfo, split: str) -> SplitIndex:
    """Returns the index of a split, all of whose records have a label.

    Raises:
        DatasetError: There is no such split, a shard is corrupt, or a record has no label.
    """
    index = info.index(split)
    check_labels(index)
    return index


def _validation_name(names: Collection[str]) -> str | None:
    return next((name for name in (*_VALIDATION_NAMES, _FALLBACK) if name in names), None)


def _check_validation(data_dir: Path, names: Collection[str], validation_share: float | None) -> None:
    """Raises a ConfigError unless there is either a validation split or a fraction to hold out."""
    found = _validation_name(names)
    if validation_share is None:
        if "train" in names and found is None:
            raise ConfigError(
                f"{data_dir}: there is a train split and none for validation; --validation-share 0.2 holds out a fifth"
            )
    elif found not in (None, _FALLBACK):
        raise ConfigError(f"{data_dir}: there is a split {found!r}; leave out --validation-share")
    elif "train" not in names:
        raise ConfigError(
            f"{data_dir}: --validation-share holds out a part of the split 'train', and there is none"
        )


def _stat_shards(data_dir: Path, lengths: Mapping[str, int]) -> tuple[ShardInfo, ...]:
    shards = []
    for filename, length in lengths.items():
        path = data_dir / filename
        try:
            status = path.stat()
        except OSError:
            raise DatasetError(f"{path}: no such shard; {REPAIR_HINT}") from None
        # Check before allocating arrays of size `length`.
        if (
            not stat.S_ISREG(status.st_mode)
            or not 0 <= length <= status.st_size // FRAMING_BYTES
            or (not length and status.st_size)
        ):
            raise DatasetError(
                f"{path}: {status.st_size:,} bytes, not a file of {length:,} records as {DATASET_INFO} says; "
                f"{REPAIR_HINT}"
            )
        if length:
            shards.append(
                ShardInfo(filename=filename, num_examples=length, num_bytes=status.st_size, sha256="")
            )
    return tuple(shards)


def _make_info(
    data_dir: Path,
    cache_dir: Path,
    description: TfdsDescription,
    files: Mapping[str, tuple[ShardInfo, ...]],
    selected: Mapping[str, np.ndarray],
    held_out: tuple[float, int] | None,
) -> TfdsInfo:
    # The stored images are arbitrary: any format, and any size unless the metadata gives one.
    image = ImageSettings(size=description.image_size, resize="stretch", encoding="jpeg", quality=95)
    return TfdsInfo(
        data_dir=data_dir,
        name=description.name,
        version=description.version,
        class_names=description.class_names,
        display_names=description.class_names,
        judging=ProcessingSettings(image=image, check="header", max_pixels=1 << 40),
        split_rule=SplitRule(seed=0, fractions={}, keep_together="duplicates", stratify=False),
        shard_bytes=0,
        splits={
            name: SplitInfo(name=name, shards=_counted(shards, selected.get(name)), class_counts=())
            for name, shards in files.items()
        },
        verdicts={},
        manifest_sha256="",
        image_feature=description.image_key,
        label_feature=description.label_key,
        filename_feature=description.filename_key,
        cache_dir=cache_dir,
        files=files,
        selected=selected,
        held_out=held_out,
    )


def _counted(shards: tuple[ShardInfo, ...], selected: np.ndarray | None) -> tuple[ShardInfo, ...]:
    """Returns the shards with the number of selected records, without shards that have none."""
    if selected is None:
        return shards
    ends = np.cumsum([shard.num_examples for shard in shards])
    counts = np.diff(np.searchsorted(selected, ends), prepend=0).tolist()
    return tuple(
        dataclasses.replace(shard, num_examples=count)
        for shard, count in zip(shards, counts, strict=True)
        if count
    )
