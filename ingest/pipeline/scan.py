"""Lists the files of a source with their classes and splits."""

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
        class_names: The classes in label order; sorted by name if empty.
        layout: Where class and split come from; by default the top folders are the classes.
        labels: Path of the table of labels if the layout has one.
        max_missing: Maximum fraction of the files in the table that may be missing.
        spool: The folder that an archive is extracted to; None if there is none.

    Raises:
        DatasetError: The source is not usable as a dataset; the message says what was found.
        ConfigError: The classes are not `class_names`.
        LimitError: More files are missing than `max_missing` allows.
    """
    layout = layout or CLASS_FOLDERS
    found = open_archive(root, spool, layout) if root.is_file() else list_files(root, layout)
    if labels is not None:
        return by_table(root, found, layout, class_names, table=labels, max_missing=max_missing)
    return by_folders(root, found, layout, class_names)
