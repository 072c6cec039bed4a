"""metadata.json: what a dataset folder holds. Written last, so a folder that has it is complete."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from ingest.errors import DatasetError

FORMAT_VERSION = 1
FILENAME = "metadata.json"

# An offset is kept for every 16th record: a stream that starts at any of them reads little in vain, and
# the offsets of a million records are 500 kB.
RECORDS_PER_BLOCK = 16

Resize = Literal["stretch", "crop", "pad"]
Encoding = Literal["jpeg", "png", "raw"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """How pictures are stored.

    Attributes:
        size: Height and width in pixels of every stored picture; None where each keeps its own.
        resize: How a picture that is not square becomes square, at ingest or, for originals, in training.
        encoding: The format of pictures that could not keep their own bytes.
        quality: JPEG quality, 1 to 100.
    """

    size: int | None
    resize: Resize
    encoding: Encoding
    quality: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One written TFRecord file.

    Attributes:
        filename: The name inside the dataset folder.
        num_examples: The number of records, never 0.
        num_bytes: The size of the file, framing included.
        sha256: Of the file, in hexadecimal.
        block_offsets: The byte offset of record 0, 16, 32, ...
    """

    filename: str
    num_examples: int
    num_bytes: int
    sha256: str
    block_offsets: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split and its shards.

    Attributes:
        name: "train", "validation" or "test".
        shards: In the order of their numbers.
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
    """What a dataset folder holds.

    Attributes:
        data_dir: The folder; not part of the file, so that it may be moved.
        name: The prefix of the shards' names.
        class_names: In label order: label 0 is the first.
        display_names: What people are shown for each class, in the same order.
        seed: Of the split.
        fractions: The shares of the held-out splits, by name; "train" is the rest.
        keep_together: The regular expression whose first group decided the split; empty where content did.
        image: How pictures are stored.
        splits: By name; a split without examples is not there.
        verdicts: The number of source files by verdict.
    """

    data_dir: Path
    name: str
    class_names: tuple[str, ...]
    display_names: tuple[str, ...]
    seed: int
    fractions: Mapping[str, float]
    keep_together: str = ""
    image: ImageSettings
    splits: Mapping[str, SplitInfo]
    verdicts: Mapping[str, int]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that a training sees: classes, image settings and the content of each shard."""
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
            DatasetError: There is none.
        """
        if name not in self.splits:
            raise DatasetError(f"{self.data_dir}: no split {name!r}; there is {', '.join(self.splits)}")
        return self.splits[name]

    def save(self, folder: Path) -> None:
        """Writes metadata.json into `folder`."""
        text = json.dumps(self._to_json(), ensure_ascii=False, indent=1) + "\n"
        (folder / FILENAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, data_dir: Path) -> "DatasetInfo":
        """Reads the metadata of the dataset folder `data_dir`.

        Raises:
            DatasetError: It is not a dataset folder, not complete, of another format version, or edited.
        """
        path = data_dir / FILENAME
        if not path.is_file():
            raise DatasetError(_why_there_is_no_metadata(data_dir))
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DatasetError(f"{path}: not JSON ({error}); {_REBUILD}") from None
        return cls._from_json(data_dir, _Node(path, "", content))

    def _to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        del content["data_dir"]
        content["splits"] = {
            name: {"class_counts": split["class_counts"], "shards": split["shards"]}
            for name, split in content["splits"].items()
        }
        return {"format_version": FORMAT_VERSION, **content, "fingerprint": self.fingerprint}

    @classmethod
    def _from_json(cls, data_dir: Path, node: "_Node") -> "DatasetInfo":
        version = node.get("format_version", int)
        if version != FORMAT_VERSION:
            raise DatasetError(
                f"{node.path}: format version {version}, this program reads {FORMAT_VERSION}; {_REBUILD}"
            )
        image = node.child("image")
        info = cls(
            data_dir=data_dir,
            name=node.get("name", str),
            class_names=tuple(node.items("class_names", str)),
            display_names=tuple(node.items("display_names", str)),
            seed=node.get("seed", int),
            fractions={key: float(value) for key, value in node.get("fractions", dict).items()},
            keep_together=node.get("keep_together", str),
            image=ImageSettings(
                size=image.get("size", int, type(None)),
                resize=image.choice("resize", get_args(Resize)),
                encoding=image.choice("encoding", get_args(Encoding)),
                quality=image.get("quality", int),
            ),
            splits={
                name: _split(name, node.child("splits").child(name)) for name in node.get("splits", dict)
            },
            verdicts=node.get("verdicts", dict),
        )
        if info.fingerprint != node.get("fingerprint", str):
            raise DatasetError(f"{node.path}: does not match its own fingerprint: it was edited; {_REBUILD}")
        return info


_REBUILD = "make the dataset again with `shardstream-ingest build`"


def _split(name: str, node: "_Node") -> SplitInfo:
    shards = [node.child("shards").child(i) for i in range(len(node.get("shards", list)))]
    return SplitInfo(
        name=name,
        class_counts=tuple(node.items("class_counts", int)),
        shards=tuple(
            ShardInfo(
                filename=shard.get("filename", str),
                num_examples=shard.get("num_examples", int),
                num_bytes=shard.get("num_bytes", int),
                sha256=shard.get("sha256", str),
                block_offsets=tuple(shard.items("block_offsets", int)),
            )
            for shard in shards
        ),
    )


def _why_there_is_no_metadata(data_dir: Path) -> str:
    if not data_dir.exists():
        return f"{data_dir}: no such folder; make it with `shardstream-ingest build IMAGES {data_dir}`"
    if not data_dir.is_dir():
        return f"{data_dir}: a file, expected a dataset folder made by `shardstream-ingest build`"
    return f"{data_dir}: no {FILENAME} in it, so it is not a complete dataset; {_REBUILD}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """A value inside the file that knows where it stands, so that errors can say so."""

    path: Path
    where: str
    value: Any

    def child(self, key: str | int) -> "_Node":
        where = f"{self.where}[{key}]" if isinstance(key, int) else f"{self.where}.{key}".lstrip(".")
        try:
            return _Node(self.path, where, self.value[key])
        except (KeyError, IndexError, TypeError):
            raise DatasetError(f"{self.path}: {where}: missing; {_REBUILD}") from None

    def get(self, key: str | int, *kinds: type) -> Any:
        child = self.child(key)
        if type(child.value) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise DatasetError(
                f"{self.path}: {child.where}: expected {expected}, found {json.dumps(child.value)[:80]}; {_REBUILD}"
            )
        return child.value

    def items(self, key: str, kind: type) -> list[Any]:
        child = self.child(key)
        return [child.get(i, kind) for i in range(len(self.get(key, list)))]

    def choice(self, key: str, allowed: Sequence[str]) -> Any:
        value = self.get(key, str)
        if value not in allowed:
            raise DatasetError(
                f"{self.path}: {self.child(key).where}: expected {' or '.join(allowed)}, found {value!r}; {_REBUILD}"
            )
        return value
