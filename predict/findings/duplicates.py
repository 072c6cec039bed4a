"""Pictures that look alike and should not: in different splits, or with different labels."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import open_manifest
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.near_duplicates import find_pairs
from shardstream.predict.inference.records import read_batches
from shardstream.predict.inference.thumbnails import Picture, make_thumbnail
from shardstream.train.runs.saved_model import ModelInfo

logger = logging.getLogger(__name__)

MAX_PAIRS = 24  # Of each kind, in the page.

_BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ManifestEntry:
    """One of two pictures that look alike.

    Attributes:
        path: Of the source photo, as the manifest has it.
        class_name: Its class.
        split: Its split.
        position: Of its record in that split.
    """

    path: str
    class_name: str
    split: str
    position: int


@dataclasses.dataclass(frozen=True, slots=True)
class EntryPair:
    """Two pictures that look alike, the one of the predicted split first."""

    one: ManifestEntry
    other: ManifestEntry


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """What looks alike in the whole dataset.

    Attributes:
        num_leaks: Pairs of one class in different splits, one of them in the split that was predicted.
        num_contradictions: Pairs of different classes.
        num_repeats: Pairs of one class in the split that was predicted.
        num_conflicts: Files that were left out by ingest, as the very same picture lies in two classes.
        leaks: The first of them.
        contradictions: The first of them.
        repeats: The first of them.
    """

    num_leaks: int
    num_contradictions: int
    num_repeats: int
    num_conflicts: int
    leaks: Sequence[EntryPair]
    contradictions: Sequence[EntryPair]
    repeats: Sequence[EntryPair]

    @property
    def copies(self) -> list[ManifestEntry]:
        """All that the page names, each once."""
        pairs = (*self.leaks, *self.contradictions, *self.repeats)
        return list(dict.fromkeys(copy for pair in pairs for copy in (pair.one, pair.other)))


def find_duplicates(info: DatasetInfo, split_name: str) -> Duplicates | None:
    """Returns what looks alike by the manifest's perceptual hashes; None where there is no manifest to be read.

    A model that has seen a picture's copy in training is better on it than it will be on new ones.
    """
    path = info.data_dir / MANIFEST
    try:
        with open_manifest(path) as manifest:
            names = ["class_name", "split", "shard", "position", "perceptual_hash", "verdict"]
            table = manifest.read(columns=names)
            hashes = table["perceptual_hash"].fill_null(0).to_numpy()
            splits, classes = (
                table[name].combine_chunks().indices.fill_null(-1) for name in ("split", "class_name")
            )
            splits, classes = splits.to_numpy(), classes.to_numpy()
            # Only what has a record: a duplicate that was left out does no harm.
            pairs = find_pairs(np.where(splits >= 0, hashes, 0).astype(np.uint64)).astype(np.int64)
            split_names = table["split"].combine_chunks().dictionary.to_pylist()
            here = split_names.index(split_name)
            a, b = pairs.T
            inside = (splits[a] == here) | (splits[b] == here)
            differ = classes[a] != classes[b]
            leaks = pairs[inside & ~differ & (splits[a] != splits[b])]
            repeats = pairs[inside & ~differ & (splits[a] == splits[b])]
            contradictions = pairs[differ]
            # Those in the split that was predicted come first.
            contradictions = contradictions[np.argsort(~inside[differ], kind="stable")]
            named = [leaks[:MAX_PAIRS], contradictions[:MAX_PAIRS], repeats[:MAX_PAIRS]]
            shown = np.unique(np.concatenate(named))
            paths = manifest.read(columns=["path"])["path"].take(shown).to_pylist()
    except DatasetError as error:
        logger.warning("%s", error)
        return None
    copies = {
        int(row): ManifestEntry(
            path=path,
            class_name=table["class_name"][row].as_py(),
            split=table["split"][row].as_py(),
            position=_position(info, table["split"][row].as_py(), table["shard"][row].as_py())
            + table["position"][row].as_py(),
        )
        for row, path in zip(shown.tolist(), paths, strict=True)
    }
    return Duplicates(
        num_leaks=len(leaks),
        num_contradictions=len(contradictions),
        num_repeats=len(repeats),
        num_conflicts=table["verdict"].to_pylist().count("conflict"),
        leaks=[_pair(copies, pair, split_name) for pair in leaks[:MAX_PAIRS].tolist()],
        contradictions=[_pair(copies, pair, split_name) for pair in contradictions[:MAX_PAIRS].tolist()],
        repeats=[_pair(copies, pair, split_name) for pair in repeats[:MAX_PAIRS].tolist()],
    )


def load_thumbnails(
    info: DatasetInfo, copies: Sequence[ManifestEntry], *, model: ModelInfo
) -> dict[ManifestEntry, Picture]:
    """Returns small pictures of `copies`; of a split whose shards are not here, none."""
    pictures: dict[ManifestEntry, Picture] = {}
    for split in sorted({copy.split for copy in copies}):
        wanted = sorted((copy for copy in copies if copy.split == split), key=lambda copy: copy.position)
        positions = np.array([copy.position for copy in wanted])
        batches = read_batches(
            info, split, positions, image_size=model.image_size, resize=model.resize, batch_size=_BATCH
        )
        try:
            images = [image for batch in batches for image in batch.images]
        except DatasetError as error:
            logger.warning("look-alikes of split %r are shown without pictures: %s", split, error)
        else:
            pictures.update(zip(wanted, map(make_thumbnail, images), strict=True))
    return pictures


def _position(info: DatasetInfo, split: str, shard: int) -> int:
    return sum(one.num_examples for one in info.split(split).shards[:shard])


def _pair(copies: dict[int, ManifestEntry], rows: Sequence[int], split: str) -> EntryPair:
    one, other = (copies[row] for row in rows)
    return EntryPair(one, other) if one.split == split or other.split != split else EntryPair(other, one)
