"""Validates metadata: a dataset may come from an untrusted source, and its values are used as file names and sizes."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.records import FRAMING_BYTES
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES

if TYPE_CHECKING:
    from shardstream.ingest.dataset.layout import Layout
    from shardstream.ingest.dataset.look_alikes import LookAlikes
    from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo

MAX_CLASSES = 1_000_000
_MAX_COUNT = 1 << 40
_MAX_BYTES = 1 << 60
_MAX_IMAGE_SIZE = 1 << 16
_MAX_PIXELS = 1 << 40
_MAX_NAME = 1024
_MAX_PATH = 1 << 16
_MAX_DEPTH = 1 << 12
_DATASET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,199}")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z_]{1,40}")


class InvalidValueError(Exception):
    """An invalid value: its place in the file, and what was expected."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(f"{where}: expected {expected}")


def check_info(info: "DatasetInfo", source: object, remedy: str) -> None:
    """Checks names, ranges and counts of metadata against each other.

    Args:
        info: The metadata.
        source: The file with the metadata, for the error.
        remedy: What to do, for the end of the error.

    Raises:
        DatasetError: A value is invalid.
    """
    try:
        _check_names(info)
        _check_settings(info)
        _check_splits(info.splits, info.num_classes, info.name)
        _check_layout(info.layout)
        if info.look_alikes is not None:
            _check_look_alikes(info.look_alikes)
    except InvalidValueError as error:
        raise DatasetError(f"{source}: {error}; {remedy}") from None


def shard_filename(name: str, split: str, number: int, num_shards: int) -> str:
    """Returns the file name of a shard that TensorFlow Datasets expects."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{num_shards:05d}"


def _expect(holds: object, where: str, expected: str) -> None:
    if not holds:
        raise InvalidValueError(where, expected)


def _check_names(info: "DatasetInfo") -> None:
    _expect(_DATASET_NAME.fullmatch(info.name), "name", "letters, digits and underscores, a letter first")
    _expect(_VERSION.fullmatch(info.version), "version", "three numbers, such as 1.0.0")
    _expect(1 <= len(info.class_names) <= MAX_CLASSES, "class_names", f"1 to {MAX_CLASSES:,} classes")
    _expect(len(set(info.class_names)) == len(info.class_names), "class_names", "each name once")
    _expect(all(map(_is_class_name, info.class_names)), "class_names", "names without line breaks")
    _expect(
        len(info.display_names) == len(info.class_names), "display_names", f"{len(info.class_names)} names"
    )
    _expect(all(map(_is_text, info.display_names)), "display_names", "names of at most 1,024 characters")
    hashes = info.manifest_sha256 == "" or _SHA256.fullmatch(info.manifest_sha256)
    _expect(hashes, "manifest_sha256", "64 hexadecimal digits")


def _check_settings(info: "DatasetInfo") -> None:
    image, rule = info.image, info.split_rule
    _expect(image.size is None or 1 <= image.size <= _MAX_IMAGE_SIZE, "judging.image.size", "1 to 65,536")
    side = info.largest_source_side
    _expect(side is None or 1 <= side <= _MAX_PIXELS, "largest_source_side", "1 to 2**40")
    _expect(1 <= image.quality <= 100, "judging.image.quality", "1 to 100")
    _expect(1 <= info.judging.max_pixels <= _MAX_PIXELS, "judging.max_pixels", "1 to 2**40")
    _expect(1 <= info.shard_bytes <= _MAX_BYTES, "shard_bytes", "1 to 2**60")
    _expect(abs(rule.seed) < 1 << 64, "split_rule.seed", "a number of at most 64 bits")
    known = set(rule.fractions) <= set(SPLIT_NAMES[1:])
    _expect(known, "split_rule.fractions", f"fractions of {' and '.join(SPLIT_NAMES[1:])}")
    in_range = all(0 <= fraction <= 1 for fraction in rule.fractions.values())  # False for NaN.
    _expect(in_range and sum(rule.fractions.values()) <= 1, "split_rule.fractions", "at most 1 in all")
    _expect(_is_text(rule.keep_together), "split_rule.keep_together", "at most 1,024 characters")
    _check_counts(info.verdicts, "verdicts")
    named = all(isinstance(text, str) and _is_text(text) for item in info.versions.items() for text in item)
    _expect(named, "versions", "a text for each name")


def _check_counts(counts: Mapping[str, object], where: str) -> None:
    names = all(_WORD.fullmatch(name) for name in counts)
    _expect(names and all(map(_is_count, counts.values())), where, "a count for each verdict")


def _check_splits(splits: "Mapping[str, SplitInfo]", num_classes: int, name: str) -> None:
    _expect(splits, "splits", "at least one split")
    for split in splits.values():
        where = f"splits.{split.name}"
        _expect(split.name in SPLIT_NAMES, "splits", f"splits called {', '.join(SPLIT_NAMES)}")
        _expect(split.shards, f"{where}.shards", "at least one shard")
        for number, shard in enumerate(split.shards):
            place = f"{where}.shards[{number}]"
            filename = shard_filename(name, split.name, number, len(split.shards))
            _expect(shard.filename == filename, f"{place}.filename", repr(filename))
            _expect(1 <= shard.num_examples < _MAX_COUNT, f"{place}.num_examples", "1 to 2**40")
            least = FRAMING_BYTES * shard.num_examples
            _expect(least <= shard.num_bytes < _MAX_BYTES, f"{place}.num_bytes", f"{least} to 2**60")
            _expect(_SHA256.fullmatch(shard.sha256), f"{place}.sha256", "64 hexadecimal digits")
        _check_class_counts(split, num_classes, f"{where}.class_counts")


def _check_class_counts(split: "SplitInfo", num_classes: int, where: str) -> None:
    _expect(len(split.class_counts) == num_classes, where, f"{num_classes} counts")
    counts: Iterable[object] = split.class_counts
    total = f"counts that sum to the {split.num_examples} records of the split"
    _expect(all(map(_is_count, counts)) and sum(split.class_counts) == split.num_examples, where, total)


def _check_layout(layout: "Layout") -> None:
    depth = layout.class_depth
    _expect(depth is None or 1 <= depth <= _MAX_DEPTH, "layout.class_depth", f"1 to {_MAX_DEPTH}, or null")
    columns = layout.path_column, layout.label_column, layout.split_column
    texts = all(map(_is_text, (*layout.exclude, *layout.include, *columns)))
    _expect(texts, "layout", "patterns and names of columns of at most 1,024 characters")
    if not layout.has_table:
        _expect(not any(columns), "layout.path_column", "a name, as there are other columns")


def _check_look_alikes(found: "LookAlikes") -> None:
    counts = found.num_same, found.num_bursts, found.num_compared, found.num_candidates
    _expect(all(map(_is_count, counts)), "look_alikes", "counts of pairs")
    _expect(
        found.num_same + found.num_bursts <= found.num_compared,
        "look_alikes.num_compared",
        "all that was found",
    )
    _expect(
        found.num_compared <= found.num_candidates, "look_alikes.num_candidates", "all that were compared"
    )
    for name, pairs, count in (
        ("same", found.same, found.num_same),
        ("bursts", found.bursts, found.num_bursts),
    ):
        paths = all(len(path) <= _MAX_PATH and _is_unicode(path) for pair in pairs for path in pair)
        _expect(paths and len(pairs) <= count, f"look_alikes.{name}", f"at most {count} pairs of paths")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_class_name(name: str) -> bool:
    return _is_text(name) and name == name.strip() and bool(name) and "\n" not in name


def _is_text(text: str) -> bool:
    return len(text) <= _MAX_NAME and "\0" not in text and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can contain a lone surrogate.
        return False
    return True
