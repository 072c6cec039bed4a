"""Checkpoints: the whole state of a run in one file, whole or not at all, and checked when it is read.

The file is a line that says what it is, the length of the header, the header as JSON, the arrays one behind the
other as they lie in memory (C order, little-endian), and the SHA-256 of all that. Not Keras's or TensorFlow's
formats: `.keras` and `save_weights` leave out the states of random generators, `tf.train.Checkpoint` is several
files that a kill can leave in between, and none of them notices a flipped bit.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shardstream.ingest.common.atomic_io import fsync_folder, open_atomic
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import MAX_DESCRIPTION_BYTES, open_regular, parse_errors
from shardstream.train.engine.progress import Progress

logger = logging.getLogger(__name__)

_MAGIC = b"shardstream checkpoint 1\n"
_HEADER_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = hashlib.sha256().digest_size
_START = len(_MAGIC) + _HEADER_LENGTH.size
_SUFFIX = ".checkpoint"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """All that a run needs to go on as if nothing had been.

    Attributes:
        position: Where.
        secs: What the run has taken so far, over all its processes.
        history: The figures of each epoch that is over, as in history.csv; what the best and the last were
            follows from it.
        variables: Every variable by its name.
        best_weights: Of the best model so far, by their numbers; empty before the first epoch is over. They are
            here so that best.keras can be made to fit the state whatever happened between two checkpoints.
    """

    position: Progress
    secs: float
    history: Sequence[Mapping[str, float]]
    variables: Mapping[str, np.ndarray]
    best_weights: Mapping[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Writes the file at `path`, which is there only once all of it is on the disk.

        Raises:
            OSError: The disk is full or fails; what was there before is as it was.
        """
        with open_atomic(path) as file:
            for part in self._parts():
                file.write(part)
        fsync_folder(path.parent)

    def to_bytes(self) -> bytes:
        """Returns what is in the file."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes | memoryview]:
        groups = {"variables": self.variables, "best_weights": self.best_weights}
        # Not `ascontiguousarray`, which turns a number into an array of one.
        arrays = [
            np.require(array, requirements="C") for group in groups.values() for array in group.values()
        ]
        header = {
            "position": dataclasses.asdict(self.position),
            "secs": self.secs,
            "history": list(self.history),
            "arrays": {name: _describe(group) for name, group in groups.items()},
        }
        text = json.dumps(header).encode()
        digest = hashlib.sha256()
        for part in (_MAGIC, _HEADER_LENGTH.pack(len(text)), text, *map(_as_bytes, arrays)):
            digest.update(part)
            yield part
        yield digest.digest()

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Reads the file at `path`.

        Raises:
            DatasetError: It is not as it was written.
        """
        with open_regular(path) as file:
            if not _has_announced_size(file):
                raise DatasetError(f"{path}: not as it was written")
            content = file.read()
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Checkpoint":
        """Returns what `to_bytes` made bytes of; `name` is for the error.

        Raises:
            DatasetError: They are not as they were.
        """
        body = memoryview(content)[:-_DIGEST_BYTES]
        if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != content[-_DIGEST_BYTES:]:
            raise DatasetError(f"{name}: not as it was written")
        with parse_errors(Path(name), "--no-resume starts over"):
            return cls._parse(body)

    @classmethod
    def _parse(cls, body: memoryview) -> "Checkpoint":
        (length,) = _HEADER_LENGTH.unpack(body[len(_MAGIC) : _START])
        header = json.loads(bytes(body[_START : _START + length]))
        arrays = _arrays(body[_START + length :], header["arrays"])
        return cls(
            position=_position(header["position"]),
            secs=_secs(header["secs"]),
            history=[_figures(row) for row in header["history"]],
            variables=next(arrays),
            best_weights=next(arrays),
        )


def _has_announced_size(file: BinaryIO) -> bool:
    """Whether a file has the size that its header gives it, so that it may be read: a file may have any size."""
    size = os.fstat(file.fileno()).st_size
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        (length,) = _HEADER_LENGTH.unpack(file.read(_START)[len(_MAGIC) :])
        header = json.loads(file.read(length if length <= MAX_DESCRIPTION_BYTES else 0))
        described = [array for group in header["arrays"].values() for array in group]
        array_bytes = sum(_num_bytes(dtype, shape) for _, dtype, shape in described)
        file.seek(0)
        return size == _START + length + array_bytes + _DIGEST_BYTES
    return False


def _num_bytes(dtype: str, shape: Sequence[int]) -> int:
    # Registers bfloat16 and its like with NumPy, by name.
    import ml_dtypes  # noqa: F401

    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"an array of the shape {shape}")
    return np.dtype(dtype).itemsize * math.prod(shape)


def _position(content: Mapping[str, Any]) -> Progress:
    position = Progress(**content)
    if (
        type(position.epoch) is not int
        or type(position.step) is not int
        or min(position.epoch, position.step) < 0
    ):
        raise ValueError(f"a position of epoch {position.epoch} and step {position.step}")
    return dataclasses.replace(
        position, train_secs=_secs(position.train_secs), waiting_secs=_secs(position.waiting_secs)
    )


def _figures(row: Mapping[str, Any]) -> Mapping[str, float]:
    if any(type(value) not in (int, float) for value in row.values()):
        raise ValueError(f"figures that are no numbers: {str(row)[:80]}")
    return row


def _secs(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"a time of {value} seconds")
    return float(value)


def _describe(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, array.dtype.name, array.shape) for name, array in arrays.items()]


def _as_bytes(array: np.ndarray) -> memoryview:
    # Viewed as bytes, because NumPy gives no buffer of bfloat16.
    return array.reshape(-1).view(np.uint8).data


def _arrays(content: memoryview, groups: Mapping[str, list[Any]]) -> Iterator[dict[str, np.ndarray]]:
    for described in groups.values():
        group = {}
        for name, dtype, shape in described:
            num_bytes = _num_bytes(dtype, shape)
            group[name] = np.frombuffer(content[:num_bytes], np.uint8).view(np.dtype(dtype)).reshape(shape)
            content = content[num_bytes:]
        yield group


class Checkpoints:
    """The checkpoints of one run, the last two of which are kept."""

    def __init__(self, folder: Path, hint: str = "--no-resume starts over") -> None:
        """Takes the folder, which need not be there yet, and what to do where all in it is corrupt."""
        self._folder = folder
        self._hint = hint
        self._last: Path | None = None

    def paths(self) -> list[Path]:
        """Returns the files, the one that is furthest first."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"), reverse=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Adds `checkpoint` and removes all but it and the last one that was saved or read.

        Raises:
            OSError: The disk is full or fails; what was there before is as it was.
        """
        position = checkpoint.position
        path = self._folder / f"{position.epoch:06d}-{position.step:09d}{_SUFFIX}"
        checkpoint.write(path)
        # By name, not the newest two: one that turned out to be corrupt may be further on.
        for other in set(self.paths()) - {path, self._last}:
            other.unlink()
        self._last = path

    def age_secs(self, now: float) -> float:
        """Returns how old the last one is that was saved or read, at the time `now` of the clock on the wall."""
        return now - self._last.stat().st_mtime if self._last else 0.0

    def latest(self) -> Checkpoint | None:
        """Returns the one that is furthest of those that are sound, or None where none was ever saved.

        Raises:
            DatasetError: There are checkpoints, and all are corrupt.
        """
        paths = self.paths()
        for path, before in itertools.zip_longest(paths, paths[1:]):
            try:
                checkpoint = Checkpoint.read(path)
            except (DatasetError, OSError) as error:
                reason = error if isinstance(error, DatasetError) else f"{path}: {error.strerror}"
                instead = f"the one before, {before.name}, is used" if before else "there is none before"
                logger.warning("%s; %s", reason, instead)
                continue
            self._last = path
            return checkpoint
        if paths:
            raise DatasetError(f"{self._folder}: no checkpoint there can be read; {self._hint}")
        return None

    def sweep(self) -> None:
        """Removes what a process that was killed left half-written."""
        for path in self._folder.glob(f"*{_SUFFIX}.*.part"):
            path.unlink()
