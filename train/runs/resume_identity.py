"""Identity of the training in a folder of `ResumeCallback`: the data and options it was started with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import read_regular
from shardstream.train.runs.run_folder import RunFolder, incomplete

# Keys of every version so far. Other files may be called resume.json too, such as a curriculum vitae.
_KEYS = {"batch_size", "seed", "data"}


def identity_path(folder: RunFolder) -> Path:
    """Returns the path of the file, written before the first checkpoint."""
    return folder.path / "resume.json"


def read_identity(folder: RunFolder) -> dict[str, Any]:
    """Returns the identity of the training in `folder`; empty if there is none.

    Raises:
        ConfigError: There are foreign files.
    """
    path = identity_path(folder)
    try:
        content: Any = json.loads(read_regular(path))
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    # Files that a kill may leave before the first checkpoint.
    ours = {folder.lock, incomplete(path), folder.checkpoints}
    is_empty = not folder.path.exists() or set(folder.path.iterdir()) <= ours
    is_ours = isinstance(content, dict) and content.keys() >= _KEYS
    if not (is_ours or (content == {} and is_empty)):
        raise ConfigError(
            f"{folder.path}: holds files that ResumeCallback did not write; choose another folder"
        )
    # Files without a version number have the first order.
    return content and {"order_version": 1, **content}


def check_identity(folder: RunFolder, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Checks that training resumes with the same data and options.

    Raises:
        ConfigError: It does not.
    """
    for name in [*identity, *saved]:
        if (before := saved.get(name)) != (now := identity.get(name)):
            raise ConfigError(
                f"{folder.path}: begun with {name}={before!r}, now it is {now!r}; "
                "use the same or choose another folder"
            )
