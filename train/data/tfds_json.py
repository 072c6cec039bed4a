"""The JSON files of TFDS folders, checked before `tensorflow_datasets` parses them: they may be untrusted."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.train.data.tfds_index import REPAIR_HINT

# Far above the largest of the TFDS catalog, and small enough to parse quickly.
_MAX_JSON_BYTES = 1 << 22
_KNOWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features(\.\w+)+")


def check_file(path: Path, max_bytes: int) -> None:
    """Raises a DatasetError unless `path` is a regular file of at most `max_bytes`."""
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; {REPAIR_HINT}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{path}: not a regular file; {REPAIR_HINT}")
    if status.st_size > max_bytes:
        raise DatasetError(f"{path}: {status.st_size:,} bytes, expected at most {max_bytes:,}; {REPAIR_HINT}")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        DatasetError: It cannot be read.
    """
    check_file(path, _MAX_JSON_BYTES)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({str(error)[:80]}); {REPAIR_HINT}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected a JSON object; {REPAIR_HINT}")
    return content


def check_classes(path: Path, content: dict[str, Any]) -> None:
    """Raises a DatasetError if `tensorflow_datasets` would import or open anything but its own.

    It imports the module of every class that features.json names, and opens the files that some classes name.
    """
    for values in _objects(path, content):
        for key in ("pythonClassName", "python_class_name", "type"):
            name = values.get(key)
            if isinstance(name, str) and not _KNOWN_CLASS.fullmatch(name):
                shown = escape_control_chars(name[:100])
                raise DatasetError(
                    f"{path}: a feature of the class {shown!r}; expected one of "
                    "tensorflow_datasets.core.features"
                )
        for key in ("names_file", "namesFile"):
            if isinstance(values.get(key), str):
                raise DatasetError(f"{path}: class names in the file of another folder; {REPAIR_HINT}")


def _objects(path: Path, content: object) -> Iterator[dict[str, Any]]:
    """Yields all JSON objects in `content`, including those in JSON strings."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            yield value
            pending += value.values()
            for key in ("json", "content"):  # Of features whose content is JSON in a string.
                if isinstance(value.get(key), str):
                    try:
                        pending.append(json.loads(value[key]))
                    except (ValueError, RecursionError):
                        raise DatasetError(f"{path}: {key!r} is not JSON; {REPAIR_HINT}") from None
