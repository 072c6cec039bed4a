"""Folders of other programs that TensorFlow Datasets reads: one picture and one label in each record.

What is there is described by dataset_info.json and features.json; TensorFlow Datasets itself is not needed.
Source: github.com/tensorflow/datasets, core/dataset_info.py, core/features/*.py and core/naming.py, version 4.9.10.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import parse_errors, read_regular
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.validation import MAX_CLASSES, is_plain_name
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings
from shardstream.train.data.shard_index import IndexedShard, index_shards

logger = logging.getLogger(__name__)

_REMEDY = "make or download the dataset again"
_MAX_SHARDS = 1 << 20
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
    described = _split_lengths(content, data_dir / DATASET_INFO)
    lengths = {name: of_shards for name, (_, of_shards) in described.items()}
    filenames = {
        name: _filenames(split, len(lengths[name]), content, data_dir)
        for name, (split, _) in described.items()
    }
    flat = [name for names in filenames.values() for name in names]
    shards = index_shards(data_dir, flat, label_key.encode(), len(class_names), cache_dir=cache_dir)
    indexed = dict(zip(flat, shards, strict=True))
    splits = {
        name: _split(name, {shard: indexed[shard] for shard in names}, len(class_names), data_dir)
        for name, names in filenames.items()
        if any(indexed[shard].num_examples for shard in names)
    }
    _check_counts(lengths, splits, data_dir)
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
    with parse_errors(path, _REMEDY):
        content = json.loads(read_regular(path))
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected an object of JSON; {_REMEDY}")
    return content


def _features(path: Path) -> dict[str, dict[str, Any]]:
    content = _read_json(path)
    with parse_errors(path, _REMEDY):
        features = content["featuresDict"]["features"]
        if not all(isinstance(feature, dict) for feature in features.values()):
            raise ValueError("a feature that is no object")
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
    with parse_errors(data_dir / FEATURES, _REMEDY):
        count = int(feature["classLabel"]["numClasses"])
        if not 1 <= count <= MAX_CLASSES:
            raise ValueError(f"{count} classes, expected 1 to {MAX_CLASSES:,}")
    filename = f"{label_key.replace('/', '.')}.labels.txt"
    path = data_dir / filename
    if not is_plain_name(filename) or not path.exists():
        return tuple(map(str, range(count)))
    with parse_errors(path, _REMEDY):
        lines = read_regular(path).decode("utf-8").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != count or len(set(names)) != count:
        raise DatasetError(f"{path}: {len(set(names))} names, {FEATURES} says {count} classes")
    return names


def _split_lengths(content: Mapping[str, Any], path: Path) -> dict[str, tuple[dict[str, Any], list[int]]]:
    """Returns each split's description and the number of records in each of its shards, by its name."""
    splits: dict[str, tuple[dict[str, Any], list[int]]] = {}
    with parse_errors(path, _REMEDY):
        for split in content.get("splits", []):
            lengths = [int(length) for length in list(split.get("shardLengths", []))]
            if len(lengths) > _MAX_SHARDS or not all(0 <= length < 1 << 40 for length in lengths):
                raise ValueError("shardLengths that no dataset has")
            name = split["name"]
            if not isinstance(name, str) or not is_plain_name(name) or name in splits:
                raise ValueError("a split without a name of its own")
            splits[name] = split, lengths
    return splits


def _filenames(
    split: Mapping[str, Any], num_shards: int, content: Mapping[str, Any], data_dir: Path
) -> list[str]:
    template = str(split.get("filepathTemplate") or _TEMPLATE)
    names = []
    for number in range(num_shards):
        name = template
        for key, value in {
            "DATASET": content.get("name", ""),
            "SPLIT": split["name"],
            "FILEFORMAT": "tfrecord",
            "SHARD_X_OF_Y": f"{number:05d}-of-{num_shards:05d}",
            "SHARD_INDEX": f"{number:05d}",
            "NUM_SHARDS": f"{num_shards:05d}",
        }.items():
            name = name.replace(f"{{{key}}}", str(value))
        if not all(is_plain_name(part) for part in name.split("/")):
            raise DatasetError(
                f"{data_dir / DATASET_INFO}: {name[:200]!r} is not in the folder of the dataset; {_REMEDY}"
            )
        names.append(name)
    if len(set(names)) != len(names):
        raise DatasetError(f"{data_dir / DATASET_INFO}: several shards of one name; {_REMEDY}")
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


def _check_counts(
    lengths: Mapping[str, Sequence[int]], splits: Mapping[str, SplitInfo], data_dir: Path
) -> None:
    for name, of_shards in lengths.items():
        expected = sum(of_shards)
        found = splits[name].num_examples if name in splits else 0
        if found != expected:
            raise DatasetError(
                f"{data_dir}: split {name!r} has {found:,} records, {DATASET_INFO} says {expected:,}; {_REMEDY}"
            )


def _with_validation(splits: dict[str, SplitInfo], data_dir: Path) -> dict[str, SplitInfo]:
    """Returns the splits, and among them one that is called "validation"."""
    used = next((name for name in _VALIDATION_NAMES if name in splits), None)
    if used is None or used == "validation":
        return splits
    logger.info("%s: the split %r is used for validation", data_dir, used)
    return {**splits, "validation": dataclasses.replace(splits[used], name="validation")}
