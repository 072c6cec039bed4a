"""Reads the members of a .zip or .tar sequentially, in on-disk order."""

import calendar
import contextlib
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from shardstream.ingest.common.errors import DatasetError

# Same limit as for plain files.
_MAX_FILE_BYTES = 400_000_000
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1
_MAX_SECS = 1 << 33  # Nanoseconds since 1970 fit into 64 bits until the year 2242.


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        path: Path as stored in the archive.
        size_bytes: Size as stored in the archive.
        mtime_ns: Modification time in nanoseconds since 1970.
        skipped: Why it is skipped, such as a link; empty for a plain file.
        content: File object with its bytes; None if it has none.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    skipped: str
    content: IO[bytes] | None


def read_members(path: Path, check_space: Callable[[int], None]) -> Iterator[Member]:
    """Yields the members of an archive except folders.

    Args:
        path: A .zip or .tar file, compressed or not.
        check_space: Called with the total size of all members if the archive states it up front.

    Raises:
        DatasetError: The archive is encrypted.
    """
    return _zip_members(path, check_space) if zipfile.is_zipfile(path) else _tar_members(path)


def _zip_members(path: Path, check_space: Callable[[int], None]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        infos.sort(key=lambda info: info.header_offset)  # On-disk order: sequential reads.
        if any(info.flag_bits & _ENCRYPTED_FLAG for info in infos):
            raise DatasetError(f"{path}: encrypted; unpack it with its password and give the folder")
        check_space(sum(info.file_size for info in infos))
        for info in infos:
            name, mtime_ns = _zip_name(info), _time_ns(_zip_secs(info))
            reason = _zip_reason(info)
            if reason:
                yield Member(name, info.file_size, mtime_ns, reason, None)
            else:
                with archive.open(info) as content:
                    yield Member(name, info.file_size, mtime_ns, "", content)


def _zip_secs(info: zipfile.ZipInfo) -> float:
    with contextlib.suppress(ValueError):  # Some programs write no date: month 0, day 0.
        return calendar.timegm((*info.date_time, 0, 0, 0))
    return 0


def _time_ns(secs: float) -> int:
    """Returns a time in nanoseconds; 0 if it is invalid: an archive may say NaN, or the year 30,000."""
    return int(secs * 1_000_000_000) if abs(secs) < _MAX_SECS else 0


def _zip_reason(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "links in the archive"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return "neither file nor folder"
    return _size_reason(info.file_size)


def _size_reason(size_bytes: int) -> str:
    return f"larger than {_MAX_FILE_BYTES / 1e6:.0f} MB" if size_bytes > _MAX_FILE_BYTES else ""


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Returns a member's path. Programs that do not write UTF-8 mostly use the system's encoding of file names."""
    name = info.orig_filename.split("\0")[0] if "\0" not in info.filename else info.filename
    if not info.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437", "replace")
        for encoding in (
            "utf-8",
            "cp949",
        ):  # macOS writes UTF-8 without setting the flag, Windows in Korea writes CP949.
            with contextlib.suppress(UnicodeDecodeError):
                name = raw.decode(encoding)
                break
    return name.replace("\\", "/") if info.create_system == 0 or "/" not in name else name


def _tar_members(path: Path) -> Iterator[Member]:
    # As a stream: read once from front to back, however it is compressed.
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined] - tarfile keeps all members: 1 GB per million.
            if info.isdir():
                continue
            reason = "" if info.isfile() else "links in the archive"
            if not info.isfile() and not (info.issym() or info.islnk()):
                reason = "neither file nor folder"
            reason = reason or _size_reason(info.size)
            content = None if reason else archive.extractfile(info)
            yield Member(info.name, info.size, _time_ns(info.mtime), reason, content)
