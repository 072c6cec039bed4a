"""What the training in a folder of `ResumeCallback` was begun with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import read_regular
from shardstream.train.runs.run_folder import RunFolder, incomplete

# What each had so far. A resume.json is also what a curriculum vitae is called.
_KEYS = {"batch_size", "seed", "data"}


def identity_path(folder: RunFolder) -> Path:
    """Returns the file; there before the first checkpoint."""
    return folder.path / "resume.json"


def read_identity(folder: RunFolder) -> dict[str, Any]:
    """Returns what the training in `folder` was begun with; empty if there is none.

    Raises:
        ConfigError: There are files of others.
    """
    path = identity_path(folder)
    try:
        content: Any = json.loads(read_regular(path))
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    # What a kill leaves before the first checkpoint.
    ours = {folder.lock, incomplete(path), folder.checkpoints}
    is_empty = not folder.path.exists() or set(folder.path.iterdir()) <= ours
    is_ours = isinstance(content, dict) and content.keys() >= _KEYS
    if not (is_ours or (content == {} and is_empty)):
        raise ConfigError(
            f"{folder.path}: holds files that ResumeCallback did not write; choose another folder"
        )
    # What was written before there was a number has the first order.
    return content and {"order_version": 1, **content}


def check_identity(folder: RunFolder, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Checks that training goes on with what it was begun with.

    Raises:
        ConfigError: It does not.
    """
    for name in [*identity, *saved]:
        if (before := saved.get(name)) != (now := identity.get(name)):
            raise ConfigError(
                f"{folder.path}: begun with {name}={before!r}, now it is {now!r}; "
                "use the same or choose another folder"
            )
