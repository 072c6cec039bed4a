"""The map step: a unit of files becomes a file of pictures and a file of verdicts.

A unit's name is a hash of all that decides its result: the files with their sizes and times, and how pictures
are judged and stored. So a result that is there is right, and work that was done before a kill is found again
without a word about it anywhere.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NamedTuple

from ingest.engine import run_alone
from ingest.errors import MachineError
from ingest.images import Judged, judge
from ingest.metadata import ImageSettings
from ingest.records import encode_entries, frame
from ingest.scan import Listing, SourceFile, shown

# A unit is what a kill can cost a worker, and what is judged again file by file where a decoder dies.
_FILES_PER_UNIT = 128
_BYTES_PER_UNIT = 32 << 20
# No photo is larger; something that is named like one may be, and is not worth a machine's memory.
_MAX_FILE_BYTES = 512 << 20
# A photo of 100 million pixels takes 2 s; a slow machine is ten times slower.
_MAX_SECS_PER_FILE = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """A run of files of the listing, and how to judge them.

    Attributes:
        first: The number of the first file in the listing.
        files: At least one.
        root: The source folder.
        image: How pictures are stored.
        max_pixels: The largest picture that is decoded.
        folder: Where the results go.
        poisonous: The paths of files that killed a worker process: rejected without being opened again.
    """

    first: int
    files: list[SourceFile]
    root: Path
    image: ImageSettings
    max_pixels: int
    folder: Path
    poisonous: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """A hash of all that decides the result."""
        content = (
            [[shown(file.path), file.size_bytes, file.mtime_ns] for file in self.files],
            dataclasses.asdict(self.image),
            self.max_pixels,
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def pictures_path(self) -> Path:
        """A TFRecord file of the map entries of each picture's Example, all but its label."""
        return self.folder / f"{self.name}.pictures"

    @property
    def verdicts_path(self) -> Path:
        """A line of JSON for each file. Written last: where it is, the unit is done."""
        return self.folder / f"{self.name}.verdicts"


class FileVerdict(NamedTuple):
    """What became of one source file, before it is compared with others.

    Attributes:
        path: Relative to the source folder.
        size_bytes: Of the file.
        mtime_ns: Of the file.
        sha256: Of its content, in hexadecimal; empty if it could not be read.
        verdict: "ok", "repaired" or "rejected".
        reason: How it was repaired or why it was rejected.
        offset: Of its record in the unit's file of pictures.
        num_bytes: Of that record, framing included; 0 if rejected.
        source_height: Of the upright picture, in pixels.
        source_width: Of the upright picture, in pixels.
        perceptual_hash: Of the picture.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    verdict: str
    reason: str
    offset: int
    num_bytes: int
    source_height: int
    source_width: int
    perceptual_hash: int


def plan_units(listing: Listing, *, image: ImageSettings, max_pixels: int, folder: Path) -> Iterator[Unit]:
    """Yields the units of all files in order. Where they are cut depends on the listing alone."""
    first = 0
    while first < len(listing):
        end, num_bytes = first, 0
        while end < len(listing) and end - first < _FILES_PER_UNIT and num_bytes < _BYTES_PER_UNIT:
            num_bytes += listing[end].size_bytes
            end += 1
        yield Unit(first, [listing[i] for i in range(first, end)], listing.root, image, max_pixels, folder)
        first = end


def judge_unit(unit: Unit) -> int:
    """Judges each file of `unit` and writes the unit's two files, unless they are there; returns how many files."""
    if not unit.verdicts_path.exists():
        verdicts = _write_pictures(unit)
        lines = "".join(json.dumps(verdict, ensure_ascii=False) + "\n" for verdict in verdicts)
        write_whole(unit.verdicts_path, lines.encode())
    return len(unit.files)


def judge_unit_file_by_file(unit: Unit) -> int:
    """Judges a unit that was lost when a worker died; if it dies again, finds the file that kills it.

    Most units that were lost had only waited beside the one to blame, so each gets another try as a whole: a process
    for every file of every one of them would take minutes.

    Raises:
        MachineError: No file kills its process, and yet the unit as a whole does.
    """
    with contextlib.suppress(BrokenExecutor):
        return run_alone(judge_unit, unit)
    poisonous = frozenset(file.path for file in unit.files if _is_poisonous(unit, file))
    try:
        return run_alone(judge_unit, dataclasses.replace(unit, poisonous=poisonous))
    except BrokenExecutor:
        raise MachineError(
            f"a worker process died twice with the files from {shown(unit.files[0].path)} on, most often because "
            "memory ran out; the same command goes on where this one stopped, and fewer --workers need less memory"
        ) from None


def _is_poisonous(unit: Unit, file: SourceFile) -> bool:
    try:
        run_alone(_judge_only, dataclasses.replace(unit, files=[file]))
    except BrokenExecutor:
        return True
    return False


def _judge_only(unit: Unit) -> None:
    for file in unit.files:
        _judge_file(unit, file, 0)


def read_verdicts(unit: Unit) -> list[FileVerdict]:
    """Returns the verdicts of a unit that is done, in the order of its files."""
    with unit.verdicts_path.open(encoding="utf-8") as lines:
        return [FileVerdict(*json.loads(line)) for line in lines]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all, whatever happens."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _write_pictures(unit: Unit) -> list[FileVerdict]:
    verdicts = []
    beside = unit.pictures_path.with_name(f"{unit.name}.{os.getpid()}.part")
    with beside.open("wb") as pictures:
        for file in unit.files:
            verdict, record = _judge_file(unit, file, pictures.tell())
            pictures.write(record)
            verdicts.append(verdict)
        pictures.flush()
        os.fsync(pictures.fileno())
    beside.rename(unit.pictures_path)
    return verdicts


def _judge_file(unit: Unit, file: SourceFile, offset: int) -> tuple[FileVerdict, bytes]:
    if file.path in unit.poisonous:
        return _verdict(file, "", Judged("rejected", "kills or hangs its decoder"), offset, 0), b""
    try:
        data = _read(unit.root / file.path, file.size_bytes)
    except OSError as error:
        return _verdict(file, "", Judged("rejected", f"cannot be read: {error.strerror}"), offset, 0), b""
    sha256 = hashlib.sha256(data).hexdigest()
    # A decoder that hangs hears no Python: the alarm ends its process, which is then found to have died.
    signal.alarm(_MAX_SECS_PER_FILE)
    judged = judge(data, Path(file.path).suffix, image=unit.image, max_pixels=unit.max_pixels)
    signal.alarm(0)
    record = _record(file, sha256, judged)
    return _verdict(file, sha256, judged, offset, len(record)), record


def _read(path: Path, size_bytes: int) -> bytes:
    if size_bytes > _MAX_FILE_BYTES:
        raise OSError(0, f"{size_bytes:,} bytes, more than a photo has")
    with path.open("rb") as file:
        return file.read()


def _record(file: SourceFile, sha256: str, judged: Judged) -> bytes:
    if judged.verdict == "rejected":
        return b""
    entries = encode_entries(
        {
            "image": judged.stored,
            "image/filename": shown(file.path).encode(),
            "image/height": judged.size[0],
            "image/sha256": sha256.encode(),
            "image/source_height": judged.source_size[0],
            "image/source_width": judged.source_size[1],
            "image/width": judged.size[1],
        }
    )
    return frame(entries)


def _verdict(file: SourceFile, sha256: str, judged: Judged, offset: int, num_bytes: int) -> FileVerdict:
    return FileVerdict(
        path=shown(file.path),
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        sha256=sha256,
        verdict=judged.verdict,
        reason=judged.reason,
        offset=offset,
        num_bytes=num_bytes,
        source_height=judged.source_size[0],
        source_width=judged.source_size[1],
        perceptual_hash=judged.perceptual_hash,
    )
