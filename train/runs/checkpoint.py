"""Checkpoints: the complete state of a run in one file, written atomically and verified when read.

The file is a line with its format, the length of the header, the header as JSON, the arrays one after the other in
C order, little-endian, and the SHA-256 of all that. Not Keras's or TensorFlow's formats: `.keras` and `save_weights`
leave out the states of random generators, `tf.train.Checkpoint` consists of several files, which a kill can leave
inconsistent, and none of them detects a flipped bit.
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
    """Everything needed to resume a run as if it had not been interrupted.

    Attributes:
        position: Progress of the run.
        secs: Duration of the run so far, over all its processes.
        history: The metrics of each completed epoch, as in history.csv; the best and the last epoch follow from it.
        variables: Every variable by its name.
        best_weights: Weights of the best model so far, by number; empty before the first epoch is complete. They are
            included so that best.keras can match the state whatever happened between two checkpoints.
    """

    position: Progress
    secs: float
    history: Sequence[Mapping[str, float]]
    variables: Mapping[str, np.ndarray]
    best_weights: Mapping[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Writes the file at `path` atomically.

        Raises:
            OSError: The disk is full or fails; the previous file is unchanged.
        """
        with open_atomic(path) as file:
            for part in self._parts():
                file.write(part)
        fsync_folder(path.parent)

    def to_bytes(self) -> bytes:
        """Returns the content of the file."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes | memoryview]:
        groups = {"variables": self.variables, "best_weights": self.best_weights}
        # Not `ascontiguousarray`, which turns a scalar into a one-dimensional array.
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
            DatasetError: The file is corrupt.
        """
        with open_regular(path) as file:
            if not _has_announced_size(file):
                raise DatasetError(f"{path}: not as it was written")
            content = file.read()
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Checkpoint":
        """Parses what `to_bytes` returned; `name` is for the error.

        Raises:
            DatasetError: The content is corrupt.
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
    """Whether a file has the size stated in its header, so that it is safe to read: a file may be of any size."""
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
    # Registers bfloat16 and similar types with NumPy, by name.
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
    # Viewed as bytes, because NumPy provides no buffer of bfloat16.
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
    """The checkpoints of a run, of which the last two are kept."""

    def __init__(self, folder: Path, hint: str = "--no-resume starts over") -> None:
        """Takes the folder, which may not exist yet, and what to do if all its checkpoints are corrupt."""
        self._folder = folder
        self._hint = hint
        self._last: Path | None = None

    def paths(self) -> list[Path]:
        """Returns the files, most advanced first."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"), reverse=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Adds `checkpoint` and removes all others but the last one saved or read.

        Raises:
            OSError: The disk is full or fails; the previous files are unchanged.
        """
        position = checkpoint.position
        path = self._folder / f"{position.epoch:06d}-{position.step:09d}{_SUFFIX}"
        checkpoint.write(path)
        # By name, not the newest two: a corrupt one may be more advanced.
        for other in set(self.paths()) - {path, self._last}:
            other.unlink()
        self._last = path

    def age_secs(self, now: float) -> float:
        """Returns the age of the last one saved or read, at the wall-clock time `now`."""
        with contextlib.suppress(FileNotFoundError):  # Its run has replaced or removed it in the meantime.
            return now - self._last.stat().st_mtime if self._last else 0.0
        return 0.0

    def latest(self) -> Checkpoint | None:
        """Returns the most advanced intact checkpoint, or None if none was ever saved.

        Raises:
            DatasetError: There are checkpoints, and all are corrupt.
        """
        paths = self.paths()
        for path, before in itertools.zip_longest(paths, paths[1:]):
            try:
                checkpoint = Checkpoint.read(path)
            except FileNotFoundError:  # Its run has replaced or removed it in the meantime.
                continue
            except (DatasetError, OSError) as error:
                reason = error if isinstance(error, DatasetError) else f"{path}: {error.strerror}"
                instead = f"the one before, {before.name}, is used" if before else "there is none before"
                logger.warning("%s; %s", reason, instead)
                continue
            self._last = path
            return checkpoint
        if any(path.exists() for path in paths):
            raise DatasetError(f"{self._folder}: no checkpoint there can be read; {self._hint}")
        return None

    def remove_incomplete(self) -> None:
        """Removes incomplete files that a killed process left."""
        for path in self._folder.glob(f"*{_SUFFIX}.*.part"):
            path.unlink()
