"""The map step: each task turns some source files into a file of records and a file of results.

Results are content-addressed: the name of a task is a hash of everything that determines its result (the files with
their sizes and times, and the processing settings). An existing result is therefore valid, and an interrupted job
resumes without a journal. Nothing is flushed to disk, because the results are temporary; instead, results found at a
restart are verified completely before they are used, since a power cut may have truncated them.
"""

import dataclasses
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.atomic_io import open_atomic_nosync
from shardstream.ingest.common.errors import MachineError, is_machine_error
from shardstream.ingest.common.prefetch import Content, LatencyEstimate, read_files
from shardstream.ingest.common.versions import writer_versions
from shardstream.ingest.dataset.records import RecordError, encode_entries, encode_example, frame
from shardstream.ingest.execution.crashes import MAX_SECS_PER_ITEM, REASON, AttemptLog, run_isolated
from shardstream.ingest.images.process import ProcessedImage, process_image
from shardstream.ingest.images.settings import ProcessingSettings
from shardstream.ingest.pipeline.listing import Listing, shown
from shardstream.ingest.pipeline.results import REJECTED, RESULTS_VERSION, ResultsWriter, TaskResults

# An interrupted worker loses at most one task; after a decoder crash the task is bisected.
_MAX_FILES_PER_UNIT = 256
# Small jobs have at least some hundred tasks, so that all workers finish at about the same time.
_MIN_BYTES_PER_UNIT, _MAX_BYTES_PER_UNIT, _UNITS_PER_JOB = 4 << 20, 32 << 20, 256
# Shared by all tasks of this process: the latency of the disk does not depend on the task.
_PACE = LatencyEstimate()


@dataclasses.dataclass(frozen=True, slots=True)
class MapTask:
    """Some files, and how to process them.

    Attributes:
        name: A hash of everything that determines the result.
        root: The source folder.
        paths: Paths of the files relative to `root`, at least one.
        sizes: The size of each file in bytes.
        labels: The class of each file.
        known: The SHA-256 of each file that was processed before, which is skipped if its content still has it; empty
            for the other files. An empty sequence if no file is known.
        judging: How images are processed and stored.
        folder: The folder for the results.
        crashing: The indices of files that crashed two worker processes: rejected without being opened again.
        locations: The location of each file below `root` if it is not its path: members of an archive are spooled.
    """

    name: str
    root: Path
    paths: Sequence[str]
    sizes: Sequence[int]
    labels: Sequence[int]
    known: Sequence[bytes]
    judging: ProcessingSettings
    folder: Path
    crashing: frozenset[int] = frozenset()
    locations: Sequence[str] = ()

    @property
    def pictures_path(self) -> Path:
        """Path of the TFRecord file with the Examples of the accepted images."""
        return _path(self.folder, self.name, "pictures")

    @property
    def attempts_path(self) -> Path:
        """Path of the log of the file that a worker is processing."""
        return _path(self.folder, self.name, "attempts")

    @property
    def verdicts_path(self) -> Path:
        """Path of the file with the results. Written last: if it exists, the task is done."""
        return _path(self.folder, self.name, "verdicts")


class MapTaskDone(NamedTuple):
    """The result of a task, for progress reports."""

    num_files: int
    num_bytes: int
    num_rejected: int


class MapPlan:
    """The tasks of a job, created lazily: there may be a million of them."""

    def __init__(
        self,
        listing: Listing,
        rows: npt.NDArray[np.uint32],
        *,
        judging: ProcessingSettings,
        folder: Path,
        known: npt.NDArray[np.uint64] | None = None,
    ) -> None:
        """Splits `rows` of the listing into tasks. The boundaries depend only on the file sizes.

        Args:
            listing: All files.
            rows: The rows to process, in order.
            judging: How images are processed and stored.
            folder: The folder for the results.
            known: The previous SHA-256 of each row of the listing, uint64 [files, 4], 0 if unknown.
        """
        self._listing = listing
        self._rows = rows
        self._judging = judging
        self._folder = folder
        self._known = known
        self._versions = writer_versions()
        self._starts = _cut(listing.sizes[rows])
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[MapTask]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> MapTask:
        rows, listing = self.rows(number), self._listing
        if not len(rows):
            raise IndexError(number)
        paths = [self._listing.path(int(row)) for row in rows]
        sizes = listing.sizes[rows]
        known: list[bytes] = []
        if self._known is not None:
            known = [digest.astype(">u8").tobytes() if digest.any() else b"" for digest in self._known[rows]]
        content = hashlib.sha256(repr((RESULTS_VERSION, self._versions, self._judging, known)).encode())
        content.update("\0".join(paths).encode("utf-8", "surrogateescape"))
        # Without the inodes: some file systems number files anew at each mount, and a job has to resume.
        content.update(sizes.tobytes() + listing.mtimes[rows].tobytes() + listing.ctimes[rows].tobytes())
        self._names[number] = content.hexdigest()[:32]
        return MapTask(
            name=self._names[number],
            root=self._listing.root,
            paths=paths,
            sizes=sizes.tolist(),
            labels=self._listing.labels[rows].tolist(),
            known=known,
            judging=self._judging,
            folder=self._folder,
            locations=[listing.location(int(row)) for row in rows] if len(listing.numbers) else (),
        )

    @property
    def num_files(self) -> int:
        """The number of files in all tasks."""
        return len(self._rows)

    def results(self) -> Iterator[tuple[npt.NDArray[np.uint32], Path, TaskResults]]:
        """Yields the rows of each task, its file of records and its results, once all tasks are done.

        Raises:
            MachineError: Work in progress is missing or corrupt.
        """
        for number in range(len(self)):
            unit = self._names[number]
            path = _path(self._folder, unit, "verdicts")
            try:
                verdicts = TaskResults.load(path)
            except RecordError as error:
                raise MachineError(
                    f"{path}: {error}: work in progress is corrupt; run the same command again to redo it"
                ) from None
            yield self.rows(number), _path(self._folder, unit, "pictures"), verdicts

    def rejected_so_far(self) -> Iterator[tuple[str, str]]:
        """Yields the path and the reason of each rejected file of the tasks that are done."""
        for number, name in sorted(self._names.items()):
            try:
                results = TaskResults.load(_path(self._folder, name, "verdicts"))
            except (FileNotFoundError, RecordError):
                continue
            rows = self.rows(number)
            for i in np.flatnonzero(results.table["verdict"] == REJECTED).tolist():
                reason = results.reasons[results.table["reason"][i]]
                yield shown(self._listing.path(int(rows[i]))), reason

    def rows(self, number: int) -> npt.NDArray[np.uint32]:
        """Returns the rows of the listing in task `number`."""
        return self._rows[self._starts[number] : self._starts[number + 1]]


def process_task(unit: MapTask) -> MapTaskDone:
    """Processes each file of `unit` and writes the two result files, unless they exist.

    Raises:
        MachineError: The source folder disappeared.
    """
    verdicts = _find_done(unit)
    if verdicts is None or verdicts.has_unread:  # Unreadable files may be readable by now.
        verdicts = _write_pictures(unit)
        with open_atomic_nosync(unit.verdicts_path) as file:
            file.write(verdicts.encode())
    return MapTaskDone(len(unit.paths), sum(unit.sizes), int((verdicts.table["verdict"] == REJECTED).sum()))


def process_task_in_parts(unit: MapTask) -> MapTaskDone:
    """Processes a task whose worker died, in its own processes; a file that crashes two of them is rejected.

    Raises:
        MachineError: The process dies without having opened a file.
    """
    return run_isolated(process_task, unit, log=unit.attempts_path, without=_without)


def _without(unit: MapTask, crashing: frozenset[int]) -> MapTask:
    return dataclasses.replace(unit, crashing=crashing)


def _cut(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the start of each task, and the end of the last."""
    total = int(sizes.sum())
    most = min(_MAX_BYTES_PER_UNIT, max(_MIN_BYTES_PER_UNIT, total // _UNITS_PER_JOB))
    ends = np.cumsum(sizes)
    starts = [0]
    while starts[-1] < len(sizes):
        start = starts[-1]
        before = int(ends[start - 1]) if start else 0
        full = int(np.searchsorted(ends, before + most)) + 1
        starts.append(min(full, start + _MAX_FILES_PER_UNIT, len(sizes)))
    return np.asarray(starts, np.int64)


def _path(folder: Path, name: str, suffix: str) -> Path:
    # Many file systems are slow with a million files in one folder.
    return folder / name[:2] / f"{name}.{suffix}"


def _find_done(unit: MapTask) -> TaskResults | None:
    """Returns the results of a task that was done before, if its files are intact."""
    try:
        verdicts = TaskResults.load(unit.verdicts_path)
        verdicts.check_pictures(unit.pictures_path)
    except (FileNotFoundError, RecordError):
        return None
    return verdicts


def _write_pictures(unit: MapTask) -> TaskResults:
    verdicts = ResultsWriter(unit.labels)
    offset = 0
    unit.pictures_path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic_nosync(unit.pictures_path) as pictures:
        for number, (sha256, judged, record) in enumerate(_judge_files(unit)):
            pictures.write(record)
            verdicts.set(number, sha256, judged, offset, len(record))
            offset += len(record)
    return verdicts.all


def _judge_files(unit: MapTask) -> Iterator[tuple[bytes, ProcessedImage | None, bytes]]:
    """Yields for each file its SHA-256, the verdict, None if the content is known, and the record."""
    opened = [number for number in range(len(unit.paths)) if number not in unit.crashing]
    contents = read_files(
        [unit.root / (unit.locations or unit.paths)[number] for number in opened],
        [unit.sizes[number] for number in opened],
        _PACE,
    )
    with AttemptLog(unit.attempts_path) as attempts:
        for number in range(len(unit.paths)):
            if number in unit.crashing:
                yield b"", ProcessedImage("rejected", REASON), b""
                continue
            attempts.note(number)
            # A hung decoder runs no Python handlers: the alarm kills the process, and the log names the file.
            signal.alarm(MAX_SECS_PER_ITEM)
            judged = _judge_content(unit, number, next(contents))
            signal.alarm(0)
            yield judged


def _judge_content(unit: MapTask, number: int, data: Content) -> tuple[bytes, ProcessedImage | None, bytes]:
    path = unit.paths[number]
    if isinstance(data, OSError):
        _check_source(unit.root, (unit.locations or unit.paths)[number], data)
        return b"", ProcessedImage("rejected", f"cannot be read: {data.strerror}"), b""
    sha256 = hashlib.sha256(data)
    if unit.known and unit.known[number] == sha256.digest():
        return sha256.digest(), None, b""
    judging = unit.judging
    judged = process_image(
        data, Path(path).suffix, image=judging.image, max_pixels=judging.max_pixels, check=judging.check
    )
    return sha256.digest(), judged, _record(path, unit.labels[number], sha256.hexdigest(), judged)


def _check_source(root: Path, path: str, error: OSError) -> None:
    """Distinguishes an unreadable file from a failing or unmounted disk.

    Raises:
        MachineError: The error is caused by the machine, or the folder of the file disappeared.
    """
    if is_machine_error(error):
        raise MachineError(
            f"{root / shown(path)}: {error.strerror}, also when retried; finished work is kept: run the "
            "same command again once the disk or the server answers"
        )
    folder = root / path.split("/")[0]
    if not os.path.isdir(folder):  # noqa: PTH112 - It answers whatever is there.
        raise MachineError(
            f"{folder}: disappeared while it was read ({error.strerror}); finished work is kept: bring it back and "
            "run the same command again"
        )


def _record(path: str, label: int, sha256: str, judged: ProcessedImage) -> bytes:
    if judged.verdict == "rejected":
        return b""
    entries = encode_entries(
        {
            "image": judged.stored,
            "image/filename": shown(path).encode(),
            "image/height": judged.size[0],
            "image/sha256": sha256.encode(),
            "image/source_height": judged.source_size[0],
            "image/source_width": judged.source_size[1],
            "image/width": judged.size[1],
            "label": label,
        }
    )
    return frame(encode_example(entries))
