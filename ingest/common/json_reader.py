"""Values of a JSON file that know their path in the file, for error messages."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import DatasetError


@dataclasses.dataclass(frozen=True, slots=True)
class JsonNode:
    """A value inside a JSON file.

    Attributes:
        path: The file.
        remedy: What to do if it is invalid.
        value: The value from `json.loads`.
        where: Path of the value inside the file, such as "splits.train.shards[2]"; empty for the root.
    """

    path: Path
    remedy: str
    value: Any
    where: str = ""

    def child(self, key: str | int) -> "JsonNode":
        """Returns the value of a key or index. Like all methods below, raises a DatasetError if it is missing."""
        where = f"{self.where}[{key}]" if isinstance(key, int) else f"{self.where}.{key}".lstrip(".")
        try:
            return dataclasses.replace(self, where=where, value=self.value[key])
        except (KeyError, IndexError, TypeError):
            raise DatasetError(f"{self.path}: {where}: missing; {self.remedy}") from None

    def get(self, key: str | int, *kinds: type) -> Any:
        """Returns the plain value of a key, of one of the types `kinds`."""
        child = self.child(key)
        if type(child.value) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            found = json.dumps(child.value)[:80]
            raise DatasetError(
                f"{self.path}: {child.where}: expected {expected}, found {found}; {self.remedy}"
            )
        return child.value

    def items(self, key: str, kind: type) -> list[Any]:
        """Returns the plain values of a list of `kind`."""
        child = self.child(key)
        return [child.get(i, kind) for i in range(len(self.get(key, list)))]

    def choice(self, key: str, allowed: Sequence[str]) -> Any:
        """Returns a plain string that is one of `allowed`."""
        value = self.get(key, str)
        if value not in allowed:
            raise DatasetError(
                f"{self.path}: {self.child(key).where}: expected {' or '.join(allowed)}, "
                f"found {value[:80]!r}; {self.remedy}"
            )
        return value
