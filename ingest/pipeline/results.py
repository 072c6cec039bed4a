"""The results of a map task for each of its files: one file with a line of reasons and a fixed-width table."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.safe_files import open_regular, read_regular
from shardstream.ingest.dataset.manifest import VERDICTS
from shardstream.ingest.dataset.records import RecordError, check_origin, frame, unframe
from shardstream.ingest.images.process import ProcessedImage

OK, REPAIRED, DUPLICATE, CONFLICT, REJECTED = range(len(VERDICTS))
# Upper bound for 256 files and their reasons.
_MAX_BYTES = 16 << 20
UNCHANGED = len(VERDICTS)  # The content was processed before; only used within a job.

# Part of the task names: increase it when the layout or meaning of these files changes.
RESULTS_VERSION = 2

# digest: SHA-256 of the file, 0 if it could not be read.
# reason: an index into the reasons. offset, num_bytes: of the record in the task's file of records, framing included.
# label: the class in the record, which may not be the current one when an interrupted job resumes.
# source_height, source_width: of the upright image, in pixels. has_hash: whether perceptual_hash is known.
TABLE = np.dtype(
    [
        ("digest", "<u8", 4),
        ("verdict", "u1"),
        ("reason", "<u4"),
        ("offset", "<u8"),
        ("num_bytes", "<u4"),
        ("label", "<u4"),
        ("source_height", "<u4"),
        ("source_width", "<u4"),
        ("has_hash", "?"),
        ("perceptual_hash", "<u8"),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskResults:
    """The verdicts on the files of a task, before files are compared with each other.

    Attributes:
        table: One row of TABLE per file.
        reasons: How files were repaired or why they were rejected; the first is empty.
    """

    table: npt.NDArray[np.void]
    reasons: list[str]

    @classmethod
    def load(cls, path: Path) -> "TaskResults":
        """Reads a file with the output of `encode`.

        Raises:
            RecordError: The file is corrupt.
        """
        reasons, _, rows = unframe(read_regular(path, max_bytes=_MAX_BYTES)).partition(b"\n")
        try:
            return cls(np.frombuffer(rows, TABLE), json.loads(reasons))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"not what the map step writes ({error})") from None

    def encode(self) -> bytes:
        """Returns the content of the task's results file."""
        # Framed as a record: its checksum detects a file that a power cut left incomplete.
        return frame(json.dumps(self.reasons).encode() + b"\n" + self.table.tobytes())

    @property
    def has_unread(self) -> bool:
        """Whether a file was not read: it was unreadable or crashed its worker process."""
        return bool((~self.table["digest"].any(axis=1)).any())

    def check_pictures(self, path: Path) -> None:
        """Raises RecordError unless the task's file of records has all records of these results."""
        digests = self.table["digest"].astype(">u8")
        with open_regular(path) as file:
            for row in np.flatnonzero(self.table["num_bytes"]).tolist():
                payload = unframe(file.read(int(self.table["num_bytes"][row])))
                check_origin(payload, digests[row].tobytes().hex().encode())


class ResultsWriter:
    """Collects the results of a task file by file."""

    def __init__(self, labels: Sequence[int]) -> None:
        """Starts with no result for files of the classes `labels`."""
        self._table = np.zeros(len(labels), TABLE)
        self._table["label"] = labels
        self._reasons = {"": 0}

    def set(
        self, number: int, sha256: bytes, judged: ProcessedImage | None, offset: int, num_bytes: int
    ) -> None:
        """Sets the result of file `number`.

        Args:
            number: Index of the file in the task.
            sha256: SHA-256 of its content, 32 bytes; empty if it could not be read.
            judged: The verdict; None if the content was processed before.
            offset: Byte offset of its record.
            num_bytes: Bytes of its record.
        """
        row = self._table[number]
        if sha256:
            row["digest"] = np.frombuffer(sha256, ">u8")
        if judged is None:
            row["verdict"] = UNCHANGED
            return
        row["verdict"] = VERDICTS.index(judged.verdict)
        row["reason"] = self._reasons.setdefault(judged.reason, len(self._reasons))
        row["offset"], row["num_bytes"] = offset, num_bytes
        row["source_height"], row["source_width"] = judged.source_size
        if judged.perceptual_hash is not None and judged.verdict != "rejected":
            row["has_hash"], row["perceptual_hash"] = True, judged.perceptual_hash

    @property
    def all(self) -> TaskResults:
        """Returns the collected results."""
        return TaskResults(self._table, list(self._reasons))
