"""The files that let stock TensorFlow Datasets read the folder: tfds.builder_from_directory(DATA).

dataset_info.json is protobuf JSON: an unknown key is an error in TFDS, so it has no keys of our own. TFDS 4.9 strips
each line of `label.labels.txt` and silently accepts a wrong number of names, so names are checked when folders are
listed.
Source: github.com/tensorflow/datasets, core/dataset_info.py and core/features/*.py, version 4.9.10.
"""

import re
from pathlib import Path
from typing import Any

from shardstream.ingest.common.json_text import json_text
from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.ingest.dataset.records import FRAMING_BYTES
from shardstream.ingest.images.settings import ImageSettings

FILENAMES = ("dataset_info.json", "features.json", "label.labels.txt")
_FEATURES = "tensorflow_datasets.core.features"


def dataset_name(data_dir: Path) -> str:
    """Returns the TFDS name of the dataset in `data_dir`, which prefixes its shards.

    For `photos/1.0.0`, the layout of `tfds.load("photos")`, it is "photos". TFDS allows letters, digits and "_", with a
    letter first.
    """
    folder = data_dir.parent if _is_version(data_dir.name) else data_dir
    name = re.sub(r"[^a-zA-Z0-9_]+", "_", folder.name).strip("_")
    return name if re.match(r"[a-zA-Z]", name) else f"photos_{name}".rstrip("_")


def write_tfds_files(info: DatasetInfo, folder: Path) -> None:
    """Writes dataset_info.json, features.json and label.labels.txt into `folder`."""
    for filename, content in tfds_files(info).items():
        (folder / filename).write_bytes(content)


def tfds_files(info: DatasetInfo) -> dict[str, bytes]:
    """Returns the content of each of FILENAMES."""
    contents = (
        json_text(_dataset_info(info)),
        json_text(_features(info)),
        "".join(f"{name}\n" for name in info.class_names),
    )
    return {name: content.encode() for name, content in zip(FILENAMES, contents, strict=True)}


def dataset_version(data_dir: Path) -> str:
    """Returns the version that TFDS expects in a folder of that name."""
    return data_dir.name if _is_version(data_dir.name) else "1.0.0"


def _is_version(name: str) -> bool:
    return re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", name) is not None


def _dataset_info(info: DatasetInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "fileFormat": "tfrecord",
        "description": f"Photos of {', '.join(info.class_names)}, made with shardstream.",
        "supervisedKeys": {"input": "image", "output": "label"},
        "splits": [_split(split) for split in info.splits.values()],
    }


def _split(split: SplitInfo) -> dict[str, Any]:
    return {
        "name": split.name,
        # TFDS counts only the Examples, without framing.
        "numBytes": str(split.num_bytes - FRAMING_BYTES * split.num_examples),
        "shardLengths": [str(shard.num_examples) for shard in split.shards],
    }


def _features(info: DatasetInfo) -> dict[str, Any]:
    label = {
        "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(info.num_classes)},
    }
    features = {
        "image": _image(info.image),
        "label": label,
        "image/filename": {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}},
    }
    return {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _image(image: ImageSettings) -> dict[str, Any]:
    size = "-1" if image.size is None else str(image.size)
    shape = {"dimensions": [size, size, "3"]}
    if image.encoding == "raw":
        return {
            "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
            "tensor": {"dtype": "uint8", "shape": shape, "encoding": "bytes"},
        }
    return {
        "pythonClassName": f"{_FEATURES}.image_feature.Image",
        "image": {"dtype": "uint8", "shape": shape},
    }
