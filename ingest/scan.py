"""Which files are there, and to which category do they belong?"""

import array
import collections
import dataclasses
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ingest.errors import ConfigError, DatasetError

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


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All files of all categories, in the order of their paths' bytes, whatever order the disk lists them in.

    Kept in columns: 120 bytes a file, a fifth of what objects would take.

    Attributes:
        root: The source folder.
        class_names: In label order, in Unicode's composed form (NFC).
        passed_over: How many files were not looked at, by reason.
    """

    root: Path
    class_names: tuple[str, ...]
    passed_over: "collections.Counter[str]"
    _paths: list[str]
    _labels: "array.array[int]"
    _sizes: "array.array[int]"
    _mtimes: "array.array[int]"

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> SourceFile:
        return SourceFile(self._paths[index], self._labels[index], self._sizes[index], self._mtimes[index])

    def __iter__(self) -> Iterator[SourceFile]:
        return map(self.__getitem__, range(len(self)))


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
    names = _order_classes(root, folders, class_names)
    listing = Listing(root, names, passed_over, [], array.array("L"), array.array("q"), array.array("q"))
    for name in sorted(folders, key=lambda name: os.fsencode(folders[name])):
        before = len(listing)
        for entry, path in _walk(root / folders[name], folders[name], passed_over):
            _append(listing, entry, path, names.index(name))
        if len(listing) == before:
            raise DatasetError(f"{root / folders[name]}: a category without files; add photos or remove it")
    return listing


def shown(path: str) -> str:
    """Returns a path that can be written down: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _category_folders(root: Path, passed_over: "collections.Counter[str]") -> dict[str, str]:
    """Returns the folder of each category, by the category's name."""
    folders: dict[str, str] = {}
    for entry in _entries(root):
        if _is_hidden(entry.name):
            passed_over["hidden or clutter"] += 1
        elif not entry.is_dir():
            passed_over["outside any category"] += 1
        else:
            # macOS stores "음" in three pieces (NFD), everybody else in one (NFC): the same name to a person.
            name = unicodedata.normalize("NFC", shown(entry.name))
            if name in folders:
                raise DatasetError(
                    f"{root}: two categories are called {name!r} ({os.fsencode(folders[name])!r} and "
                    f"{os.fsencode(entry.name)!r} to the disk); rename one"
                )
            if name != name.strip() or "\n" in name:
                raise DatasetError(
                    f"{root}: category {name!r} has spaces or line breaks around it; rename it"
                )
            folders[name] = entry.name
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
    folder: Path,
    prefix: str,
    passed_over: "collections.Counter[str]",
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yields the files below `folder`, with their paths, in the order of their paths' bytes."""
    status = folder.stat()
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        passed_over["links in a circle"] += 1
        return
    for entry in _entries(folder):
        path = f"{prefix}/{entry.name}"
        if _is_hidden(entry.name):
            passed_over["hidden or clutter"] += 1
        elif entry.is_dir():
            yield from _walk(folder / entry.name, path, passed_over, here)
        else:
            yield entry, path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        # A folder sorts as if it ended in "/", as it does inside of the paths below it.
        return sorted(entries, key=lambda entry: os.fsencode(entry.name) + b"/" * entry.is_dir())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _append(listing: Listing, entry: os.DirEntry[str], path: str, label: int) -> None:
    try:
        status = entry.stat()
    except OSError:
        status = entry.stat(follow_symlinks=False)  # A link to nothing: judged, and rejected, like any file.
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        listing.passed_over["neither file nor folder"] += 1  # Reading a pipe would wait for ever.
        return
    listing._paths.append(path)
    listing._labels.append(label)
    listing._sizes.append(status.st_size)
    listing._mtimes.append(status.st_mtime_ns)
