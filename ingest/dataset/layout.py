"""How files of the source map to classes and splits: set by `build`, reused by `update`."""

import dataclasses

from shardstream.ingest.common.json_reader import JsonNode


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the class and the split of a file come from, and which files are skipped.

    Attributes:
        splits_from_folders: Whether the top folders are the splits, with the class folders below them.
        class_depth: The folder level of the class, 1 for the first (below the splits); None for the deepest.
        exclude: Globs of files and folders to skip; they take precedence over `include`.
        include: Globs of the files and folders to use; empty for all.
        follow_links: Whether to follow links that lead out of the source folder.
        path_column: The column with the path in the table of labels; empty without a table.
        label_column: The column with the class.
        split_column: The column with the split; empty if the table has none.
    """

    splits_from_folders: bool = False
    class_depth: int | None = 1
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    follow_links: bool = False
    path_column: str = ""
    label_column: str = ""
    split_column: str = ""

    @property
    def has_table(self) -> bool:
        """Whether the classes come from a table of labels."""
        return bool(self.path_column)

    @property
    def has_given_splits(self) -> bool:
        """Whether the source gives the split of each file."""
        return self.splits_from_folders or bool(self.split_column)

    @classmethod
    def from_json(cls, node: JsonNode) -> "Layout":
        """Parses the output of `dataclasses.asdict`. Raises a DatasetError if it is invalid."""
        return cls(
            splits_from_folders=node.get("splits_from_folders", bool),
            class_depth=node.get("class_depth", int, type(None)),
            exclude=tuple(node.items("exclude", str)),
            include=tuple(node.items("include", str)),
            follow_links=node.get("follow_links", bool),
            path_column=node.get("path_column", str),
            label_column=node.get("label_column", str),
            split_column=node.get("split_column", str),
        )


# The default layout: one folder per class.
CLASS_FOLDERS = Layout()
