"""What became of each file of a unit: one file with a line of reasons and a table of fixed width."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.safe_files import open_regular, read_regular
from shardstream.ingest.dataset.manifest import VERDICTS
from shardstream.ingest.dataset.records import RecordError, check_origin, frame, unframe
from shardstream.ingest.images.process import ProcessedImage

OK, REPAIRED, DUPLICATE, CONFLICT, REJECTED = range(len(VERDICTS))
# Of 256 files and their reasons.
_MAX_BYTES = 16 << 20
UNCHANGED = len(VERDICTS)  # The content is the one that was judged before; only known inside of a job.

# In the name of a task: another layout or meaning of these files is another number.
RESULTS_VERSION = 1

# digest: SHA-256 of the file, 0 if it could not be read.
# reason: an index into the reasons. offset, num_bytes: of the record in the unit's file of images, framing included.
# source_height, source_width: of the upright image, in pixels. has_hash: whether perceptual_hash is known.
TABLE = np.dtype(
    [
        ("digest", "<u8", 4),
        ("verdict", "u1"),
        ("reason", "<u4"),
        ("offset", "<u8"),
        ("num_bytes", "<u4"),
        ("source_height", "<u4"),
        ("source_width", "<u4"),
        ("has_hash", "?"),
        ("perceptual_hash", "<u8"),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskResults:
    """The verdicts on the files of a unit, before they are compared with others.

    Attributes:
        table: A row of TABLE for each file.
        reasons: How a file was repaired or why it was rejected; the first one is empty.
    """

    table: npt.NDArray[np.void]
    reasons: list[str]

    @classmethod
    def load(cls, path: Path) -> "TaskResults":
        """Reads what `encode` gave.

        Raises:
            RecordError: It is corrupt.
        """
        reasons, _, rows = unframe(read_regular(path, max_bytes=_MAX_BYTES)).partition(b"\n")
        try:
            return cls(np.frombuffer(rows, TABLE), json.loads(reasons))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"not what the map step writes ({error})") from None

    def encode(self) -> bytes:
        """Returns the content of the unit's file of verdicts."""
        # As a record: its checksum tells of what a power cut left half written.
        return frame(json.dumps(self.reasons).encode() + b"\n" + self.table.tobytes())

    @property
    def has_unread(self) -> bool:
        """Whether there is a file whose content nobody saw: it could not be read, or killed its process."""
        return bool((~self.table["digest"].any(axis=1)).any())

    def check_pictures(self, path: Path) -> None:
        """Raises RecordError unless the unit's file of images has all records that these verdicts tell of."""
        digests = self.table["digest"].astype(">u8")
        with open_regular(path) as file:
            for row in np.flatnonzero(self.table["num_bytes"]).tolist():
                payload = unframe(file.read(int(self.table["num_bytes"][row])))
                check_origin(payload, digests[row].tobytes().hex().encode())


class ResultsWriter:
    """Collects verdicts, file by file."""

    def __init__(self, num_files: int) -> None:
        self._table = np.zeros(num_files, TABLE)
        self._reasons = {"": 0}

    def set(
        self, number: int, sha256: bytes, judged: ProcessedImage | None, offset: int, num_bytes: int
    ) -> None:
        """Notes what became of file `number`.

        Args:
            number: In the unit.
            sha256: Of its content, 32 bytes; empty if it could not be read.
            judged: The verdict; None if the content is known from before.
            offset: Of its record.
            num_bytes: Of its record.
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
        """What was collected."""
        return TaskResults(self._table, list(self._reasons))
