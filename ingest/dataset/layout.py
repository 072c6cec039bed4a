"""How the files of the source folder become classes and splits: what `build` was told, and `update` follows."""

import dataclasses

from shardstream.ingest.common.json_reader import JsonNode


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the class and the split of a file come from, and which files are left out.

    Attributes:
        splits_from_folders: Whether the top folders are the splits, and the classes lie below them.
        class_depth: Which folder level is the class, 1 for the first (below the splits); None for the deepest.
        exclude: Globs of files and folders to leave out; they win over `include`.
        include: Globs of the only files and folders to take; empty for all.
        follow_links: Whether links that lead out of the source folder are followed.
        path_column: The column of the table of labels that has the path; empty where there is no table.
        label_column: The column with the class.
        split_column: The column with the split; empty where the table has none.
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
        """Whether the source says which split a file is in."""
        return self.splits_from_folders or bool(self.split_column)

    @classmethod
    def from_json(cls, node: JsonNode) -> "Layout":
        """Reads what `dataclasses.asdict` gave. Raises a DatasetError if it is anything else."""
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


# What a source looks like of which nothing else is said: a folder for each class.
CLASS_FOLDERS = Layout()
