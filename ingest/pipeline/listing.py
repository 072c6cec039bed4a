"""The files of a source, in columns: path, class and split of each."""

import array
import collections
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.dataset.wrong_folder import near_folder
from shardstream.ingest.pipeline.file_filter import FileFilter
from shardstream.ingest.pipeline.walk import FolderWalk, FoundFolder

_MAX_TIME_NS = (1 << 63) - 1  # The year 2262; file systems can store later times.
# For a file without a given split.
NO_SPLIT = len(SPLIT_NAMES)


class SourceFile(NamedTuple):
    """One file of a class.

    Attributes:
        path: Path relative to the source folder, with "/" as separator, as the file system has it.
        label: The number of its class.
        state: Its size and times when it was listed.
    """

    path: str
    label: int
    state: FileState


class Listing:
    """All files of all classes, sorted by the bytes of their paths, independent of the file system's order.

    Stored in columns: 44 bytes per file plus its path, a fifth of the memory of objects.

    Attributes:
        root: The folder with the files.
        class_names: Class names in label order, in Unicode's composed form (NFC).
        skipped: The number of skipped files by reason.
        notes: Notes on the layout for the user, in sentences.
        given_splits: The split that the source gives each file, an index into SPLIT_NAMES or NO_SPLIT, uint8 [files];
            empty if it gives no splits.
        numbers: For an archive the number of each file's spooled file, int64 [files]; otherwise empty.
    """

    def __init__(self, root: Path, class_names: tuple[str, ...]) -> None:
        self.root = root
        self.class_names = class_names
        self.skipped: collections.Counter[str] = collections.Counter()
        self.notes: list[str] = []
        self.given_splits: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self.numbers: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._paths = bytearray()
        self._ends = array.array("Q", [0])
        self._labels = array.array("I")
        self._sizes = array.array("q")
        self._mtimes = array.array("q")
        self._ctimes = array.array("q")
        self._inodes = array.array("Q")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> SourceFile:
        return SourceFile(self.path(row), self._labels[row], self.state(row))

    def __iter__(self) -> Iterator[SourceFile]:
        return map(self.__getitem__, range(len(self)))

    def path(self, row: int) -> str:
        """Returns the path of one file, as the file system has it."""
        return os.fsdecode(bytes(self._paths[self._ends[row] : self._ends[row + 1]]))

    def state(self, row: int) -> FileState:
        """Returns the state of one file when it was listed."""
        return FileState(self._sizes[row], self._mtimes[row], self._ctimes[row], self._inodes[row])

    def location(self, row: int) -> str:
        """Returns the path of a file on disk relative to `root`; for an archive the path of its spooled file."""
        return spooled_name(int(self.numbers[row])) if len(self.numbers) else self.path(row)

    @property
    def labels(self) -> npt.NDArray[np.uint32]:
        """The class of each file, uint32 [files]."""
        return np.frombuffer(self._labels, np.uint32)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The size of each file in bytes, int64 [files]."""
        return np.frombuffer(self._sizes, np.int64)

    @property
    def mtimes(self) -> npt.NDArray[np.int64]:
        """The modification time of each file, in nanoseconds since 1970, int64 [files]."""
        return np.frombuffer(self._mtimes, np.int64)

    @property
    def ctimes(self) -> npt.NDArray[np.int64]:
        """The time of the last status change of each file, in nanoseconds since 1970, int64 [files]."""
        return np.frombuffer(self._ctimes, np.int64)

    @property
    def inodes(self) -> npt.NDArray[np.uint64]:
        """The number of each file in its file system, uint64 [files]."""
        return np.frombuffer(self._inodes, np.uint64)

    @property
    def states(self) -> tuple[np.ndarray, ...]:
        """The fields of `FileState` in its order: int64 [files] each, the last uint64 [files]."""
        return self.sizes, self.mtimes, self.ctimes, self.inodes

    def append(self, path: bytes, label: int, state: FileState) -> None:
        """Appends a file."""
        self._paths += path
        self._ends.append(len(self._paths))
        self._labels.append(label)
        self._sizes.append(state.size_bytes)
        self._mtimes.append(min(max(state.mtime_ns, -_MAX_TIME_NS), _MAX_TIME_NS))
        self._ctimes.append(min(max(state.ctime_ns, -_MAX_TIME_NS), _MAX_TIME_NS))
        self._inodes.append(state.inode)

    def select(self, rows: npt.NDArray[np.intp]) -> "Listing":
        """Returns a listing of the given rows only, without classes and splits."""
        chosen = Listing(self.root, ())
        chosen.skipped, chosen.notes = self.skipped, self.notes
        for row in rows.tolist():
            path = bytes(self._paths[self._ends[row] : self._ends[row + 1]])
            chosen.append(path, 0, self.state(row))
        if len(self.numbers):
            chosen.numbers = self.numbers[rows]
        return chosen

    def set_classes(
        self, class_names: tuple[str, ...], labels: npt.NDArray[np.uint32], splits: npt.NDArray[np.uint8]
    ) -> None:
        """Sets the class of each file and, if the source gives splits, its split.

        Args:
            class_names: Class names in label order.
            labels: The class of each file, uint32 [files].
            splits: Like `given_splits`.
        """
        self.class_names = class_names
        self._labels = array.array("I", labels.astype(np.uint32).tobytes())
        self.given_splits = splits


class Found(NamedTuple):
    """The content of the source before classes are assigned.

    Attributes:
        listing: All files; the label of each is the number of its folder.
        folders: The paths of the folders, by their numbers; number 0 is the source itself, "".
        top_names: The names of all top-level entries, including skipped ones.
    """

    listing: Listing
    folders: list[str]
    top_names: list[str]


def spooled_name(number: int) -> str:
    """Returns the relative path of the spooled file for a member of an archive."""
    return (
        f"{number // 1000:06d}/{number:09d}"  # Many file systems are slow with a million files in one folder.
    )


def list_files(root: Path, layout: Layout) -> Found:
    """Lists all files below `root` that may be images.

    Raises:
        DatasetError: The folder does not exist, or a folder cannot be listed.
    """
    if not root.is_dir():
        question = near_folder(root)
        reason = "not a folder" if root.exists() else "no such folder" + (f"; {question}" if question else "")
        raise DatasetError(f"{root}: {reason}")
    walk = FolderWalk(root, FileFilter(layout.exclude, layout.include), follow_links=layout.follow_links)
    listing = Listing(root, ())
    numbers = {b"": 0}
    for found in walk:
        if isinstance(found, FoundFolder):
            numbers[found.path] = len(numbers)
        else:
            folder = numbers[os.path.dirname(found.path)]  # noqa: PTH120
            listing.append(found.path, folder, FileState.of(found.status))
    listing.skipped = +walk.skipped
    return Found(listing, [os.fsdecode(path) for path in numbers], sorted(os.listdir(root)))  # noqa: PTH208


def shown(path: str) -> str:
    """Returns a printable path: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
