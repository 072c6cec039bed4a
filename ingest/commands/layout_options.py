"""The options that describe the folders, tables and file names of the source."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.pipeline.file_filter import FileFilter
from shardstream.ingest.pipeline.table_file import guess_columns

# May have several globs, be repeated, or both; in Python a plain list.
_Globs = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="GLOB ..."),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOption:
    """The option for the table of labels."""

    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """A table with the class of each file, for images that are not in class folders. Its paths are relative to IMAGES
    or to the table, with or without the suffix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayoutOptions(TableOption):
    """The options for the layout of the source; `update` reuses those of `build`."""

    path_column: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """With --labels: the column of the file; by default one called path, file, filename, image or image_id."""
    label_column: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """With --labels: the column of the class; by default one called label, class, category or target."""
    split_column: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """With --labels: the column of the split (train, validation, test, or other usual words), kept as given."""
    splits_from_folders: bool = False
    """Keep the splits of IMAGES/train, IMAGES/val and IMAGES/test (or training_set, valid, dev, testing, ...), which
    hold the class folders. Without a validation folder, --validation of the training images is held out. Of an image in
    two splits the copy in test is kept, else the one in validation."""
    class_depth: int | Literal["deepest"] = 1
    """The folder level that is the class: 1 is the first below IMAGES (or below the splits). "deepest": the folder that
    an image is in, whose name has to be unique."""
    exclude: _Globs = ()
    """Skip files and folders by name at any level ('*.png', blurred), or by path inside IMAGES ('cat/old/*'). Wins over
    --include."""
    include: _Globs = ()
    """Use only files and folders that match, by name or path as above."""
    follow_links: bool = False
    """Follow links that lead out of IMAGES; by default they are skipped and counted."""

    def __post_init__(self) -> None:
        columns = {"--path-column": self.path_column, "--label-column": self.label_column}
        for option, name in {**columns, "--split-column": self.split_column}.items():
            if name and self.labels is None:
                raise ConfigError(f"{option} goes with --labels FILE.csv alone")
        if self.labels is not None and (self.splits_from_folders or self.class_depth != 1):
            raise ConfigError(
                "--labels gives the classes; --splits-from-folders and --class-depth go without it"
            )
        if self.class_depth != "deepest" and self.class_depth < 1:
            raise ConfigError(f"--class-depth has to be deepest or at least 1, got {self.class_depth}")
        FileFilter(tuple(_flat(self.exclude)), tuple(_flat(self.include)))  # Validates them early.

    @property
    def layout(self) -> Layout:
        """The layout of the source.

        Raises:
            ConfigError: The table of labels cannot be read, or has no column with a usual name.
        """
        layout = Layout(
            splits_from_folders=self.splits_from_folders,
            class_depth=None if self.class_depth == "deepest" else self.class_depth,
            exclude=tuple(_flat(self.exclude)),
            include=tuple(_flat(self.include)),
            follow_links=self.follow_links,
            path_column=self.path_column,
            label_column=self.label_column,
            split_column=self.split_column,
        )
        return layout if self.labels is None else guess_columns(self.labels, layout)


def _flat(globs: Sequence[str | Sequence[str]]) -> Iterator[str]:
    for glob in globs:
        if isinstance(glob, str):
            yield glob
        else:
            yield from glob
