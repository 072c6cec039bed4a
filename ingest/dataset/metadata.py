"""metadata.json: describes a dataset folder. Written last, so a folder that has it is complete."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.json_reader import JsonNode
from shardstream.ingest.common.json_text import json_text
from shardstream.ingest.common.safe_files import parse_errors, read_regular
from shardstream.ingest.dataset.layout import CLASS_FOLDERS, Layout
from shardstream.ingest.dataset.look_alikes import LookAlikes
from shardstream.ingest.dataset.validation import check_info
from shardstream.ingest.dataset.wrong_folder import explain_missing_metadata
from shardstream.ingest.images.settings import Check, Encoding, ImageSettings, ProcessingSettings, Resize

FORMAT_VERSION = 4
# The oldest readable format: it had block offsets and checksums here instead of in index.npy.
OLDEST_VERSION = 3
FILENAME = "metadata.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """The settings that determine the split of each image.

    Attributes:
        seed: Seed of the assignment.
        fractions: The fractions of the held-out splits, by name; "train" gets the rest.
        keep_together: What stays in one split: "duplicates", "near-duplicates", or files whose paths have the same
            first group of this regular expression.
        stratify: Whether each class gets these fractions exactly.
    """

    seed: int
    fractions: Mapping[str, float]
    keep_together: str
    stratify: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One written TFRecord file.

    Attributes:
        filename: Name inside the dataset folder.
        num_examples: The number of records, never 0.
        num_bytes: The size of the file, framing included.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    filename: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split and its shards.

    Attributes:
        name: "train", "validation" or "test".
        shards: The shards in the order of their numbers.
        class_counts: The number of examples of each class, in class order.
    """

    name: str
    shards: tuple[ShardInfo, ...]
    class_counts: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """The number of records in all shards."""
        return sum(shard.num_examples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """The size of all shards."""
        return sum(shard.num_bytes for shard in self.shards)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The description of a dataset folder.

    Attributes:
        data_dir: The folder; not stored in the file, so that the folder can be moved.
        name: The prefix of the shards' names.
        version: The version for TensorFlow Datasets.
        class_names: Class names in label order.
        display_names: The name to show for each class, in label order.
        judging: How files were processed and images stored.
        split_rule: How splits were assigned.
        shard_bytes: Approximate target size of a shard.
        splits: The splits by name, without empty ones.
        verdicts: The number of source files by verdict.
        manifest_sha256: SHA-256 of manifest.parquet, in hexadecimal.
        versions: Versions of shardstream and of the decoders and encoders that made the records, by name.
        layout: Where class and split of a file came from.
        look_alikes: Near-duplicates in different splits; None if they were not searched for, or in older datasets.
        find_look_alikes: Whether a build or an update searches for them.
        largest_source_side: Height or width, the larger, of the largest source image in pixels; None if unknown.
        format_version: Format version of the folder that was read; new folders have the newest.
    """

    data_dir: Path
    name: str
    version: str
    class_names: tuple[str, ...]
    display_names: tuple[str, ...]
    judging: ProcessingSettings
    split_rule: SplitRule
    shard_bytes: int
    splits: Mapping[str, SplitInfo]
    verdicts: Mapping[str, int]
    manifest_sha256: str
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layout: Layout = CLASS_FOLDERS
    look_alikes: LookAlikes | None = None
    find_look_alikes: bool = True
    largest_source_side: int | None = None
    format_version: int = FORMAT_VERSION

    @property
    def image(self) -> ImageSettings:
        """How images are stored."""
        return self.judging.image

    @property
    def shards(self) -> dict[str, ShardInfo]:
        """All shards, by the names of their files."""
        return {shard.filename: shard for split in self.splits.values() for shard in split.shards}

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_key(self) -> str:
        """The key of the image feature in an Example."""
        return "image"

    @property
    def label_key(self) -> str:
        """The key of the label feature in an Example."""
        return "label"

    @property
    def filename_key(self) -> str | None:
        """The key of the feature with the source path in an Example, if there is one."""
        return "image/filename"

    @property
    def remedy(self) -> str:
        """How to fix corruption, for the end of error messages."""
        return (
            f"`shardstream-ingest repair IMAGES {self.data_dir}` repairs it, "
            f"`shardstream-ingest verify {self.data_dir} --deep` shows all damage"
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that affects training: classes, image settings and the content of each shard."""
        content = {
            "class_names": self.class_names,
            "image": dataclasses.asdict(self.image),
            "splits": {
                name: [(shard.num_examples, shard.sha256) for shard in split.shards]
                for name, split in self.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def split(self, name: str) -> SplitInfo:
        """Returns the split called `name`.

        Raises:
            DatasetError: There is no such split.
        """
        if name not in self.splits:
            raise DatasetError(f"{self.data_dir}: no split {name!r}; there is {', '.join(self.splits)}")
        return self.splits[name]

    def with_manifest(self, sha256: str) -> "DatasetInfo":
        """Returns a copy with the hash of manifest.parquet, in hexadecimal."""
        return dataclasses.replace(self, manifest_sha256=sha256)

    def encode(self) -> bytes:
        """Returns the content of metadata.json, deterministic for the same information."""
        content = dataclasses.asdict(self)
        del content["data_dir"], content["format_version"]
        content["splits"] = {
            name: {"class_counts": split["class_counts"], "shards": split["shards"]}
            for name, split in content["splits"].items()
        }
        if self.layout == CLASS_FOLDERS:
            del content["layout"]  # As in datasets from before other layouts existed.
        if self.look_alikes is None:
            del content["look_alikes"]
        if self.find_look_alikes:
            del content["find_look_alikes"]
        if self.largest_source_side is None:
            del content["largest_source_side"]
        content = {"format_version": FORMAT_VERSION, **content, "fingerprint": self.fingerprint}
        return json_text(content).encode()

    def save(self, folder: Path) -> None:
        """Writes metadata.json into `folder`."""
        (folder / FILENAME).write_bytes(self.encode())

    @classmethod
    def load(cls, data_dir: Path) -> "DatasetInfo":
        """Reads the metadata of the dataset folder `data_dir`.

        Raises:
            DatasetError: The folder is not a dataset, incomplete, of another format version, or was edited.
        """
        path = data_dir / FILENAME
        if not path.is_file():
            raise DatasetError(explain_missing_metadata(data_dir, FILENAME, _REBUILD))
        with parse_errors(path, _REPAIR):
            content = read_regular(path)
        return cls.decode(data_dir, path, content)

    @classmethod
    def decode(cls, data_dir: Path, path: Path, content: bytes) -> "DatasetInfo":
        """Parses the output of `encode`.

        Args:
            data_dir: The dataset folder.
            path: Path of the file with `content`, for errors.
            content: The content of metadata.json.

        Raises:
            DatasetError: The content is corrupt, edited, or of another format version.
        """
        with parse_errors(path, _REPAIR):
            info = cls._from_json(data_dir, JsonNode(path, _REPAIR, json.loads(content)))
            check_info(info, path, _REPAIR)
        return info

    @classmethod
    def _from_json(cls, data_dir: Path, node: JsonNode) -> "DatasetInfo":
        version = node.get("format_version", int)
        if version > FORMAT_VERSION:
            raise DatasetError(
                f"{node.path}: format version {version}, this shardstream reads up to {FORMAT_VERSION}; "
                "install a newer shardstream"
            )
        if version < OLDEST_VERSION:
            raise DatasetError(
                f"{node.path}: format version {version}, this shardstream reads {OLDEST_VERSION} and newer; {_REBUILD}"
            )
        info = cls(
            data_dir=data_dir,
            name=node.get("name", str),
            version=node.get("version", str),
            class_names=tuple(node.items("class_names", str)),
            display_names=tuple(node.items("display_names", str)),
            judging=_judging(node.child("judging")),
            split_rule=_split_rule(node.child("split_rule")),
            shard_bytes=node.get("shard_bytes", int),
            splits={
                name: _split(name, node.child("splits").child(name)) for name in node.get("splits", dict)
            },
            verdicts=node.get("verdicts", dict),
            manifest_sha256=node.get("manifest_sha256", str),
            # Missing in older datasets.
            versions=node.get("versions", dict) if "versions" in node.value else {},
            layout=Layout.from_json(node.child("layout")) if "layout" in node.value else CLASS_FOLDERS,
            look_alikes=LookAlikes.from_json(node.child("look_alikes"))
            if "look_alikes" in node.value
            else None,
            find_look_alikes=node.get("find_look_alikes", bool) if "find_look_alikes" in node.value else True,
            largest_source_side=node.get("largest_source_side", int)
            if "largest_source_side" in node.value
            else None,
            format_version=version,
        )
        if info.fingerprint != node.get("fingerprint", str):
            raise DatasetError(f"{node.path}: does not match its own fingerprint: it was edited; {_REPAIR}")
        return info


_REBUILD = "make the dataset again with `shardstream-ingest build`"
_REPAIR = "repair it with `shardstream-ingest repair IMAGES DATA`"


def _judging(node: JsonNode) -> ProcessingSettings:
    image = node.child("image")
    return ProcessingSettings(
        image=ImageSettings(
            size=image.get("size", int, type(None)),
            resize=image.choice("resize", get_args(Resize)),
            encoding=image.choice("encoding", get_args(Encoding)),
            quality=image.get("quality", int),
        ),
        check=node.choice("check", get_args(Check)),
        max_pixels=node.get("max_pixels", int),
    )


def _split_rule(node: JsonNode) -> SplitRule:
    fractions = node.get("fractions", dict)
    return SplitRule(
        seed=node.get("seed", int),
        fractions={name: node.child("fractions").get(name, float) for name in fractions},
        keep_together=node.get("keep_together", str),
        stratify=node.get("stratify", bool),
    )


def _split(name: str, node: JsonNode) -> SplitInfo:
    shards = node.child("shards")
    return SplitInfo(
        name=name,
        class_counts=tuple(node.items("class_counts", int)),
        shards=tuple(_shard(shards.child(i)) for i in range(len(node.get("shards", list)))),
    )


def _shard(node: JsonNode) -> ShardInfo:
    return ShardInfo(
        filename=node.get("filename", str),
        num_examples=node.get("num_examples", int),
        num_bytes=node.get("num_bytes", int),
        sha256=node.get("sha256", str),
    )
