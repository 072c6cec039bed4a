"""Which files are there, and to which class and split does each belong?"""

from collections.abc import Sequence
from pathlib import Path

from shardstream.ingest.dataset.layout import CLASS_FOLDERS, Layout
from shardstream.ingest.pipeline.archives import open_archive
from shardstream.ingest.pipeline.labels_table import by_table
from shardstream.ingest.pipeline.layouts import by_folders
from shardstream.ingest.pipeline.listing import Listing, list_files


def scan_folder(
    root: Path,
    class_names: Sequence[str] = (),
    *,
    layout: Layout | None = None,
    labels: Path | None = None,
    max_missing: float = 0.0,
    spool: Path | None = None,
) -> Listing:
    """Lists the files of the source and their classes.

    Args:
        root: The folder whose sub-folders are the classes, or an archive of it.
        class_names: The classes in label order; sorted by name where none are given.
        layout: Where class and split come from; the top folders are the classes where it is not given.
        labels: The table of labels, where the layout has one.
        max_missing: The largest fraction of the files that the table names that may be missing.
        spool: Where the files of an archive are put; None where there is no place for them.

    Raises:
        DatasetError: There is nothing there to make a dataset of, and what is there.
        ConfigError: The classes are not `class_names`.
        LimitError: More files are missing than `max_missing` allows.
    """
    layout = layout or CLASS_FOLDERS
    found = open_archive(root, spool, layout) if root.is_file() else list_files(root, layout)
    if labels is not None:
        return by_table(root, found, layout, class_names, table=labels, max_missing=max_missing)
    return by_folders(root, found, layout, class_names)
