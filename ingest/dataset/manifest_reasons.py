"""Reads why files were rejected or repaired from two columns of the manifest: 100 million rows in some seconds."""

import collections
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from shardstream.ingest.dataset.manifest import FILENAME, check_lengths, check_num_rows, open_manifest
from shardstream.ingest.dataset.metadata import DatasetInfo

_COLUMNS = ("verdict", "reason")


@dataclasses.dataclass(frozen=True, slots=True)
class FileReasons:
    """The reasons of the files with one verdict.

    Attributes:
        counts: The number of files by reason.
        files: Path and reason of the first few files.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    files: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read_reasons(
    info: DatasetInfo, verdicts: Mapping[str, Callable[[str], bool]], *, max_files: int
) -> dict[str, FileReasons]:
    """Returns the reasons of all files with some verdicts. Unlike `read_rows`, does not compare them with the metadata.

    Args:
        info: The dataset.
        verdicts: For each verdict, a function that says whether to list the paths of files with a given reason.
        max_files: Maximum number of listed files per verdict.

    Raises:
        DatasetError: The manifest is missing or corrupt, or has another number of rows than the metadata say.
    """
    found = {verdict: FileReasons() for verdict in verdicts}
    with open_manifest(info.data_dir / FILENAME, read_dictionary=_COLUMNS) as manifest:
        check_num_rows(info, manifest)
        for group in range(manifest.num_row_groups):
            rows = manifest.read_row_group(group, columns=list(_COLUMNS))
            column, reason_column = (rows[name].combine_chunks() for name in _COLUMNS)
            check_lengths(info, "reason", reason_column.dictionary)
            reasons = reason_column.dictionary.to_pylist()
            numbers = np.asarray(reason_column.indices.fill_null(0))
            verdict_numbers = np.asarray(column.indices.fill_null(-1))
            for number, verdict in enumerate(column.dictionary.to_pylist()):
                if verdict not in found:
                    continue
                chosen = np.flatnonzero(verdict_numbers == number)
                counts = np.bincount(numbers[chosen], minlength=len(reasons))
                found[verdict].counts.update({reasons[i]: int(counts[i]) for i in np.flatnonzero(counts)})
                named = [i for i in chosen.tolist() if verdicts[verdict](reasons[numbers[i]])]
                named = named[: max_files - len(found[verdict].files)]
                if named:
                    paths = manifest.read_row_group(group, columns=["path"])["path"].take(named).to_pylist()
                    pairs = zip(paths, (reasons[numbers[i]] for i in named), strict=True)
                    found[verdict].files.extend(pairs)
    return found
