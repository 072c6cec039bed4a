"""Metadata of a TFDS folder, as parsed by `tensorflow_datasets`. Does not load TensorFlow.

A folder may come from an untrusted source, and `tensorflow_datasets` trusts it: whatever it would import, open or
format because of the metadata is checked first.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shardstream.ingest.common.errors import MACHINE_ERRNOS, DatasetError
from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.train.data.tfds_index import REPAIR_HINT
from shardstream.train.data.tfds_json import check_classes, check_file, read_json

DATASET_INFO, FEATURES = "dataset_info.json", "features.json"

_MAX_NAMES_BYTES = 1 << 26
_MAX_CLASSES = 1_000_000
_MAX_SIZE = 1 << 14
_TEMPLATE = re.compile(r"([^{}]|\{[A-Z_]+\})*")
# Features of datasets in the TFDS catalog that hold the file name of an image.
_FILENAME_KEYS = ("image/filename", "file_name", "filename", "image/file_name", "tfds/id")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TfdsDescription:
    """The part of a TFDS description that a classifier needs.

    Attributes:
        name: Name of the dataset.
        version: Version of the dataset.
        class_names: Class names in label order.
        image_key: Feature of the image.
        label_key: Feature of the label.
        filename_key: Feature of the file name, if there is one.
        image_size: Height and width of all images; None if they differ.
        shard_lengths: The number of records of each file, by split and file name, in order.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    image_key: str
    label_key: str
    filename_key: str | None
    image_size: int | None
    shard_lengths: Mapping[str, Mapping[str, int]]


def read_split_names(data_dir: Path) -> list[str]:
    """Returns the names of the splits, read from dataset_info.json without `tensorflow_datasets`.

    Raises:
        DatasetError: The file cannot be read.
    """
    content = read_json(data_dir / DATASET_INFO)
    splits = content.get("splits", [])
    names = (
        [split.get("name") for split in splits if isinstance(split, dict)] if isinstance(splits, list) else []
    )
    return [name for name in names if isinstance(name, str)]


def read_description(data_dir: Path) -> TfdsDescription:
    """Returns the description of the folder.

    Raises:
        DatasetError: It cannot be parsed, or is not a dataset of TFRecords with one image and one label each.
    """
    check_classes(data_dir / FEATURES, read_json(data_dir / FEATURES))
    for path in data_dir.glob("*.labels.txt"):
        check_file(path, _MAX_NAMES_BYTES)
    builder = _load_builder(data_dir)
    info = builder.info
    file_format = info.file_format.file_suffix if info.file_format else "tfrecord"
    if file_format != "tfrecord":
        raise DatasetError(f"{data_dir / DATASET_INFO}: records in {file_format!r}, expected 'tfrecord'")
    image_key, label_key = _find_pair(data_dir / FEATURES, info)
    return TfdsDescription(
        name=str(info.name),
        version=str(info.version),
        class_names=_class_names(data_dir, label_key, info.features[label_key]),
        image_key=image_key,
        label_key=label_key,
        filename_key=_filename_key(info.features),
        image_size=_image_size(data_dir / FEATURES, image_key, info.features[image_key]),
        shard_lengths=_shard_lengths(data_dir / DATASET_INFO, info.splits),
    )


def _load_builder(data_dir: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(data_dir.absolute()))
    # Any exception: its parsers raise whatever the failing line raises.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
            raise
        reason = escape_control_chars(" ".join(str(error).split())[:200]) or type(error).__name__
        raise DatasetError(
            f"{data_dir}: tensorflow_datasets cannot read {DATASET_INFO} and {FEATURES} ({reason}); {REPAIR_HINT}"
        ) from None


def _find_pair(path: Path, info: Any) -> tuple[str, str]:
    """Returns the names of the image and label features."""
    if _kind(info.features) != "FeaturesDict":
        raise DatasetError(f"{path}: expected a FeaturesDict, found {_kind(info.features)}")
    pair = _supervised_pair(path, info)
    if pair is not None:
        for key, kind in zip(pair, ("Image", "ClassLabel"), strict=True):
            found = _kind(info.features[key]) if key in info.features else "no feature"
            if found != kind:
                raise _refusal(path, f"its supervised key {key!r} is {found}, expected {kind}", info.features)
        return pair
    images, labels = (
        sorted(name for name, feature in info.features.items() if _kind(feature) == kind)
        for kind in ("Image", "ClassLabel")
    )
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(map(repr, images + labels)) or "none"
        reason = f"expected one Image and one ClassLabel, or supervised keys that name them, found {found}"
        raise _refusal(path, reason, info.features)
    return images[0], labels[0]


def _supervised_pair(path: Path, info: Any) -> tuple[str, str] | None:
    try:
        keys = info.supervised_keys
    except ValueError as error:
        raise DatasetError(f"{path.with_name(DATASET_INFO)}: {str(error)[:100]!r}; {REPAIR_HINT}") from None
    if not keys:
        return None
    if len(keys) not in (2, 3) or not all(isinstance(key, str) for key in keys[:2]):
        raise _refusal(path, f"supervised keys {str(keys)[:100]}, expected those of an image and a label", {})
    return keys[0], keys[1]


def _refusal(path: Path, reason: str, features: Mapping[str, Any]) -> DatasetError:
    """Returns the error that says what kind of dataset it is instead."""
    tasks = [
        f"{name!r} is for {task}" for name, feature in features.items() if (task := _other_task(feature))
    ]
    listed = f" ({', '.join(tasks[:3])})" if tasks else ""
    return DatasetError(
        escape_control_chars(
            f"{path}: {reason}{listed}; only datasets with one label for each image can be used"
        )
    )


def _other_task(feature: Any) -> str | None:
    """Returns the task that a feature belongs to, unless that is classification."""
    kinds = list(_kinds(feature))
    if "BBoxFeature" in kinds:
        return "detection"
    if "ClassLabel" in kinds[1:]:
        return "multi-label classification"
    is_number = kinds[0] in ("Tensor", "Scalar") and np.issubdtype(feature.np_dtype, np.floating)
    return "regression" if is_number else None


def _kind(feature: Any) -> str:
    return type(feature).__name__


def _kinds(feature: Any) -> Iterator[str]:
    """Yields the kinds of a feature and of its nested features."""
    yield _kind(feature)
    inner = getattr(feature, "feature", None)  # Of a Sequence.
    children = feature.values() if _kind(feature) == "FeaturesDict" else [] if inner is None else [inner]
    for child in children:
        yield from _kinds(child)


def _filename_key(features: Any) -> str | None:
    return next((key for key in _FILENAME_KEYS if key in features and _kind(features[key]) == "Text"), None)


def _class_names(data_dir: Path, key: str, feature: Any) -> tuple[str, ...]:
    path = data_dir / f"{key.replace('/', '.')}.labels.txt"
    count = feature.num_classes
    if not isinstance(count, int) or not 1 <= count <= _MAX_CLASSES:
        raise DatasetError(f"{data_dir / FEATURES}: {count} classes of {key!r}; {REPAIR_HINT}")
    try:
        # Called a second time: an exception in the builder's loading threads is lost.
        feature.load_metadata(str(data_dir.absolute()), feature_name=key.replace("/", "."))
        names = tuple(feature.names)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: {' '.join(str(error).split())[:150]}; {REPAIR_HINT}") from None
    if len(names) != count or len(set(names)) != count:
        raise DatasetError(f"{path}: {len(set(names))} names, {FEATURES} says {count} classes; {REPAIR_HINT}")
    return names


def _image_size(path: Path, key: str, feature: Any) -> int | None:
    if np.issubdtype(feature.np_dtype, np.floating):
        raise DatasetError(f"{path}: {key!r} has floating-point pixels, expected uint8 or uint16")
    height, width = feature.shape[:2]
    is_square = isinstance(height, int) and height == width and 0 < height <= _MAX_SIZE
    return height if is_square else None


def _shard_lengths(path: Path, splits: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Returns the number of records of each file, by split and file name.

    Raises:
        DatasetError: A name points outside the folder, or is used for two files.
    """
    result: dict[str, dict[str, int]] = {}
    seen: set[str] = set()
    for split in splits.values():
        template, count = split.filename_template, len(split.shard_lengths)
        # `str.format` interprets format specs: a large width makes a name of gigabytes.
        if not _TEMPLATE.fullmatch(template.template) or not split.name.isprintable():
            raise DatasetError(
                f"{path}: file names of {split.name!r} by {template.template[:100]!r}; {REPAIR_HINT}"
            )
        lengths = result[split.name] = {}
        for number, length in enumerate(split.shard_lengths):
            try:
                name = template.relative_filepath(shard_index=number, num_shards=count)
            except ValueError:
                raise DatasetError(
                    f"{path}: file names of {split.name!r} by {template.template[:100]!r}; {REPAIR_HINT}"
                ) from None
            _check_name(path, name)
            if name in seen:
                raise DatasetError(f"{path}: {name!r} is the name of two shards; {REPAIR_HINT}")
            seen.add(name)
            lengths[name] = int(length)
    return result


def _check_name(path: Path, name: str) -> None:
    plain = PurePosixPath(name)
    if (
        not name.isprintable()
        or plain.is_absolute()
        or ".." in plain.parts
        or str(plain) != name
        or name == "."
    ):
        raise DatasetError(f"{path}: {name!r} is not the name of a file in the folder of the dataset")
