"""Which files are there, and to which category do they belong?"""

import array
import collections
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.prefetch import LatencyEstimate, prefetch_map

# Left behind by file managers; never photos, whatever they hold.
_CLUTTER = {"thumbs.db", "desktop.ini"}


class SourceFile(NamedTuple):
    """One file of a category.

    Attributes:
        path: Relative to the source folder, with "/" between its parts, as the file system has it.
        label: The number of its class.
        size_bytes: When it was listed.
        mtime_ns: When it was last changed, in nanoseconds since 1970.
    """

    path: str
    label: int
    size_bytes: int
    mtime_ns: int


class Listing:
    """All files of all categories, in the order of their paths' bytes, whatever order the disk lists them in.

    Kept in columns: 26 bytes a file and its path, a fifth of what objects would take.

    Attributes:
        root: The source folder.
        class_names: In label order, in Unicode's composed form (NFC).
        passed_over: How many files were not looked at, by reason.
    """

    def __init__(self, root: Path, class_names: tuple[str, ...]) -> None:
        self.root = root
        self.class_names = class_names
        self.passed_over: collections.Counter[str] = collections.Counter()
        self._paths = bytearray()
        self._ends = array.array("Q", [0])
        self._labels = array.array("H")
        self._sizes = array.array("q")
        self._mtimes = array.array("q")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> SourceFile:
        return SourceFile(self.path(row), self._labels[row], self._sizes[row], self._mtimes[row])

    def __iter__(self) -> Iterator[SourceFile]:
        return map(self.__getitem__, range(len(self)))

    def path(self, row: int) -> str:
        """Returns the path of one file, as the file system has it."""
        return os.fsdecode(bytes(self._paths[self._ends[row] : self._ends[row + 1]]))

    @property
    def labels(self) -> npt.NDArray[np.uint16]:
        """The class of each file, uint16 [files]."""
        return np.frombuffer(self._labels, np.uint16)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The bytes of each file, int64 [files]."""
        return np.frombuffer(self._sizes, np.int64)

    @property
    def mtimes(self) -> npt.NDArray[np.int64]:
        """When each file was last changed, in nanoseconds since 1970, int64 [files]."""
        return np.frombuffer(self._mtimes, np.int64)

    def add(self, path: bytes, label: int, status: os.stat_result) -> None:
        """Appends a file."""
        self._paths += path
        self._ends.append(len(self._paths))
        self._labels.append(label)
        self._sizes.append(status.st_size)
        self._mtimes.append(status.st_mtime_ns)


def scan_folder(root: Path, class_names: Sequence[str] = ()) -> Listing:
    """Lists the files of the category folders in `root`.

    Args:
        root: The folder whose sub-folders are the categories.
        class_names: The categories in label order; sorted by name where none are given.

    Raises:
        DatasetError: There is no such folder, fewer than two categories, or one without files.
        ConfigError: `class_names` are not the names of the sub-folders.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    passed_over: collections.Counter[str] = collections.Counter()
    folders = _category_folders(root, passed_over)
    listing = Listing(root, _order_classes(root, folders, class_names))
    listing.passed_over.update(passed_over)
    pace = LatencyEstimate()
    for name in sorted(folders, key=lambda name: os.fsencode(folders[name]) + b"/"):
        before = len(listing)
        folder = os.fsencode(folders[name])
        _walk(os.fsencode(root) + b"/" + folder, folder, listing.class_names.index(name), listing, pace)
        if len(listing) == before:
            raise DatasetError(f"{root / folders[name]}: a category without files; add photos or remove it")
    return listing


def shown(path: str) -> str:
    """Returns a path that can be written down: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _category_folders(root: Path, passed_over: "collections.Counter[str]") -> dict[str, str]:
    """Returns the folder of each category, by the category's name."""
    folders: dict[str, str] = {}
    for encoded in _names(os.fsencode(root)):
        entry = os.fsdecode(encoded.removesuffix(b"/"))
        if is_clutter(entry):
            passed_over["hidden or clutter"] += 1
        elif not encoded.endswith(b"/"):
            passed_over["outside any category"] += 1
        else:
            # macOS stores "음" in three pieces (NFD), everybody else in one (NFC): the same name to a person.
            name = unicodedata.normalize("NFC", shown(entry))
            if name in folders:
                raise DatasetError(
                    f"{root}: two categories are called {name!r} ({os.fsencode(folders[name])!r} and "
                    f"{os.fsencode(entry)!r} to the disk); rename one"
                )
            if name != name.strip() or "\n" in name:
                raise DatasetError(
                    f"{root}: category {name!r} has spaces or line breaks around it; rename it"
                )
            folders[name] = entry
    return folders


def _order_classes(root: Path, folders: dict[str, str], class_names: Sequence[str]) -> tuple[str, ...]:
    if not folders:
        raise DatasetError(
            f"{root}: no category folders in it; each category has to be a sub-folder of photos"
        )
    wanted = tuple(unicodedata.normalize("NFC", name) for name in class_names) or tuple(sorted(folders))
    if sorted(wanted) != sorted(folders):
        raise ConfigError(
            f"--class-names {' '.join(wanted)} do not match the folders in {root}: {' '.join(sorted(folders))}"
        )
    if len(folders) < 2:
        raise DatasetError(f"{root}: only one category ({wanted[0]}); a classifier needs at least two")
    return wanted


def _walk(
    folder: bytes,
    prefix: bytes,
    label: int,
    listing: Listing,
    pace: LatencyEstimate,
    above: frozenset[tuple[int, int]] = frozenset(),
) -> None:
    """Adds the files below `folder` to `listing`, in the order of their paths' bytes."""
    status = os.stat(folder)  # noqa: PTH116 - Paths of pathlib are not bytes.
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        listing.passed_over["links in a circle"] += 1
        return
    names = []
    for name in _names(folder):
        if is_clutter(os.fsdecode(name.removesuffix(b"/"))):
            listing.passed_over["hidden or clutter"] += 1
        else:
            names.append(name)
    statuses = prefetch_map(_status, [folder + b"/" + name for name in names], bytes(len(names)), pace)
    for name, status in zip(names, statuses, strict=True):
        if name.endswith(b"/"):
            _walk(folder + b"/" + name[:-1], prefix + b"/" + name[:-1], label, listing, pace, here)
        elif status is None:
            listing.passed_over["gone before it was listed"] += 1
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            listing.add(prefix + b"/" + name, label, status)
        else:
            listing.passed_over["neither file nor folder"] += 1  # Reading a pipe would wait for ever.


def _names(folder: bytes) -> list[bytes]:
    """Returns what is in `folder`, in order; names alone, since a folder of a million files has a million of them.

    A folder ends in "/", and so sorts as it does inside of the paths below it.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name + b"/" * _is_folder(entry) for entry in entries)
    except OSError as error:
        raise DatasetError(
            f"{shown(os.fsdecode(folder))}: cannot be listed: {error.strerror}; make it readable or take it out of "
            "the photos"
        ) from None


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself, or to where nobody may look: judged, and rejected, like any file.
        return False


def is_clutter(name: str) -> bool:
    """Whether no person has put a file or folder of that name there."""
    return name.startswith(".") or name.lower() in _CLUTTER


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        try:
            return os.lstat(path)  # A link to nothing: judged, and rejected, like any file.
        except OSError:
            return None
