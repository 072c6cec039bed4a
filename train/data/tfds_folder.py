"""Folders of other programs that TensorFlow Datasets reads: one picture and one label in each record.

What is there is described by dataset_info.json and features.json; TensorFlow Datasets itself is not needed.
Source: github.com/tensorflow/datasets, core/dataset_info.py, core/features/*.py and core/naming.py, version 4.9.10.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings
from shardstream.train.data.shard_index import IndexedShard, index_shards

logger = logging.getLogger(__name__)

DATASET_INFO, FEATURES = "dataset_info.json", "features.json"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
# What others call the split that a training is validated on, the likeliest first.
_VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
# The pictures are as somebody stored them: any format, any size, turned as their EXIF data say.
_AS_THEY_ARE = ImageSettings(size=None, resize="stretch", encoding="jpeg", quality=95)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TfdsInfo(DatasetInfo):
    """What such a folder holds.

    Attributes:
        picture_feature: The name of the feature of the picture.
        label_feature: The name of the feature of the label.
    """

    picture_feature: str
    label_feature: str

    @property
    def image_key(self) -> str:
        """The feature of an Example that holds the picture."""
        return self.picture_feature

    @property
    def label_key(self) -> str:
        """The feature of an Example that holds the label."""
        return self.label_feature

    @property
    def remedy(self) -> str:
        """What to do about damage."""
        return "make or download the dataset again"


def is_tfds_folder(data_dir: Path) -> bool:
    """Returns whether `data_dir` holds the descriptions of a dataset."""
    return (data_dir / DATASET_INFO).is_file() and (data_dir / FEATURES).is_file()


def load_tfds_folder(data_dir: Path, cache_dir: Path) -> TfdsInfo:
    """Reads the descriptions, and all shards if they were not read before: for places, labels and damage.

    What was found in them is kept in `cache_dir`.

    Raises:
        DatasetError: It is not such a folder, or damaged.
    """
    content = _read_json(data_dir / DATASET_INFO)
    file_format = content.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise DatasetError(f"{data_dir / DATASET_INFO}: records in {file_format!r}, expected 'tfrecord'")
    features = _features(data_dir / FEATURES)
    image_key = _only(features, "image_feature.Image", data_dir)
    label_key = _only(features, "class_label_feature.ClassLabel", data_dir)
    class_names = _class_names(data_dir, label_key, features[label_key])
    filenames = {
        str(split["name"]): _filenames(split, content, data_dir) for split in content.get("splits", [])
    }
    flat = [name for names in filenames.values() for name in names]
    shards = index_shards(data_dir, flat, label_key.encode(), len(class_names), cache_dir=cache_dir)
    indexed = dict(zip(flat, shards, strict=True))
    splits = {
        name: _split(name, {shard: indexed[shard] for shard in names}, len(class_names), data_dir)
        for name, names in filenames.items()
        if any(indexed[shard].num_examples for shard in names)
    }
    _check_counts(content, splits, data_dir)
    return TfdsInfo(
        data_dir=data_dir,
        name=str(content.get("name", data_dir.name)),
        version=str(content.get("version", "1.0.0")),
        class_names=class_names,
        display_names=class_names,
        judging=ProcessingSettings(image=_AS_THEY_ARE, check="header", max_pixels=1 << 40),
        split_rule=SplitRule(seed=0, fractions={}, keep_together="duplicates", stratify=False),
        shard_bytes=0,
        splits=_with_validation(splits, data_dir),
        verdicts={},
        manifest_sha256="",
        picture_feature=image_key,
        label_feature=label_key,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); make or download the dataset again") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected an object of JSON; make or download the dataset again")
    return content


def _features(path: Path) -> dict[str, dict[str, Any]]:
    features = _read_json(path).get("featuresDict", {}).get("features", {})
    return {str(name): feature for name, feature in features.items()}


def _only(features: Mapping[str, dict[str, Any]], kind: str, data_dir: Path) -> str:
    """Returns the name of the only feature of this kind."""
    found = [name for name, feature in features.items() if str(feature.get("pythonClassName")).endswith(kind)]
    if len(found) != 1:
        listed = ", ".join(map(repr, found)) or "none"
        raise DatasetError(
            f"{data_dir / FEATURES}: expected one feature of the kind {kind.split('.')[1]}, there is {listed}; "
            "only datasets of one picture and one label can be trained from"
        )
    return found[0]


def _class_names(data_dir: Path, label_key: str, feature: Mapping[str, Any]) -> tuple[str, ...]:
    count = int(feature.get("classLabel", {}).get("numClasses", 0))
    path = data_dir / f"{label_key.replace('/', '.')}.labels.txt"
    if not path.is_file():
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    if len(names) != count or len(set(names)) != count:
        raise DatasetError(f"{path}: {len(set(names))} names, {FEATURES} says {count} classes")
    return names


def _filenames(split: Mapping[str, Any], content: Mapping[str, Any], data_dir: Path) -> list[str]:
    template = str(split.get("filepathTemplate") or _TEMPLATE)
    count = len(split.get("shardLengths", []))
    names = []
    for number in range(count):
        name = template
        for key, value in {
            "DATASET": content.get("name", ""),
            "SPLIT": split["name"],
            "FILEFORMAT": "tfrecord",
            "SHARD_X_OF_Y": f"{number:05d}-of-{count:05d}",
            "SHARD_INDEX": f"{number:05d}",
            "NUM_SHARDS": f"{count:05d}",
        }.items():
            name = name.replace(f"{{{key}}}", str(value))
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{data_dir / DATASET_INFO}: {name!r} is not in the folder of the dataset")
        names.append(name)
    return names


def _split(name: str, shards: Mapping[str, IndexedShard], num_classes: int, data_dir: Path) -> SplitInfo:
    class_counts = [0] * num_classes
    infos = []
    for filename, shard in shards.items():
        if not shard.num_examples:
            continue
        class_counts = [one + other for one, other in zip(class_counts, shard.class_counts, strict=True)]
        identity = f"{filename}\n{shard.num_bytes}\n{shard.block_checksums}"
        infos.append(
            ShardInfo(
                filename=filename,
                num_examples=shard.num_examples,
                num_bytes=shard.num_bytes,
                # Not of the content itself, which would be read once more, but of the checksums of its records.
                sha256=hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest(),
                block_offsets=shard.block_offsets,
                block_checksums=shard.block_checksums,
            )
        )
    return SplitInfo(name=name, shards=tuple(infos), class_counts=tuple(class_counts))


def _check_counts(content: Mapping[str, Any], splits: Mapping[str, SplitInfo], data_dir: Path) -> None:
    for split in content.get("splits", []):
        name, expected = split["name"], sum(map(int, split.get("shardLengths", [])))
        found = splits[name].num_examples if name in splits else 0
        if found != expected:
            raise DatasetError(
                f"{data_dir}: split {name!r} has {found:,} records, {DATASET_INFO} says {expected:,}; "
                "make or download the dataset again"
            )


def _with_validation(splits: dict[str, SplitInfo], data_dir: Path) -> dict[str, SplitInfo]:
    """Returns the splits, and among them one that is called "validation"."""
    used = next((name for name in _VALIDATION_NAMES if name in splits), None)
    if used is None or used == "validation":
        return splits
    logger.info("%s: the split %r is used for validation", data_dir, used)
    return {**splits, "validation": dataclasses.replace(splits[used], name="validation")}
