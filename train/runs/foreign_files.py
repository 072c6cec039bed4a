"""Detects files of other programs in what looks like a run folder: many have a config.json, checkpoints/ and logs/."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from shardstream.ingest.common.errors import ConfigError, UserError
from shardstream.ingest.common.safe_files import read_regular

# Keys of every config.json of a run so far, and hardly ever together in those of other programs.
_CONFIG_KEYS = {"data_dir", "seed", "batch_size"}
_CHECKPOINTS = ("*.checkpoint", "*.checkpoint.*.part")
_LOG_FOLDERS = ("train", "validation")
_LOGS = ("events.out.tfevents.*",)


def refuse_foreign_files(
    run: Path, *, config: Path, checkpoints: Path, logs: Path, results: Iterable[Path]
) -> None:
    """Refuses a folder in which a new run would remove files of other programs.

    Raises:
        ConfigError: There are such files.
    """
    if _is_of_another_program(config):
        raise ConfigError(f"{config}: of another program, not of a run; choose another --run")
    folders = (path for path in results if path.is_dir() and not path.is_symlink())
    log_files = (path for name in _LOG_FOLDERS for path in _others(logs / name, _LOGS))
    for path in (*folders, *_others(checkpoints, _CHECKPOINTS), *_others(logs, _LOG_FOLDERS), *log_files):
        raise ConfigError(f"{path}: no file of a run; move it out of {run}, or choose another --run")


def _is_of_another_program(config: Path) -> bool:
    try:
        content = json.loads(read_regular(config))
    except (OSError, ValueError, RecursionError, UserError):
        return False  # Perhaps ours, and corrupt: nothing to lose.
    return not (isinstance(content, dict) and content.keys() >= _CONFIG_KEYS)


def _others(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return  # Links are refused elsewhere.
    yield from sorted(path for path in folder.iterdir() if not any(map(path.match, names)))
