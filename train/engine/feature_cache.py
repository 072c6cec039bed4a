"""Features on disk: a file for each block of images, named by a hash of everything that determines them."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.ingest.common.safe_files import open_regular
from shardstream.train.engine.features import DTYPE, THUMBNAIL_SIZE, Features

logger = logging.getLogger(__name__)

# Increase when the content or format changes.
_FORMAT = 4
_SUFFIX = ".features.npz"


class FeatureCache:
    """Features on disk, in files named by a hash of everything that determines them."""

    def __init__(self, folder: Path | None) -> None:
        """Takes the folder, which is created when needed; None disables the cache."""
        self._folder = folder

    def load(self, identity: Mapping[str, Any], *, num_examples: int) -> Features | None:
        """Returns the features of `identity`; None if there is no file of them, or none that can be used.

        Args:
            identity: What determines the features, as JSON: dataset, split, block, backbone, sizes, versions.
            num_examples: Expected number of images.
        """
        return _load(self._path(identity), num_examples) if self._folder is not None else None

    def save(self, identity: Mapping[str, Any], features: Features) -> bool:
        """Writes the features of `identity`, and returns whether they are kept; a full disk costs a warning."""
        if self._folder is None:
            return False
        path = self._path(identity)
        try:
            _save(path, features)
        except OSError as error:
            logger.warning("%s: the features are not kept (%s)", path, error.strerror)
            return False
        return True

    def _path(self, identity: Mapping[str, Any]) -> Path:
        return (self._folder or Path()) / f"{_key(identity)}{_SUFFIX}"


def _key(identity: Mapping[str, Any]) -> str:
    content = json.dumps({**identity, "format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _load(path: Path, num_examples: int) -> Features | None:
    try:
        # Opened here: NumPy does not close the file of a corrupt archive.
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            features, key = Features.from_arrays(file), str(file["key"])
    except FileNotFoundError:
        return None
    # A corrupt archive makes the reader raise any of ValueError, BadZipFile, KeyError, EOFError.
    except Exception as error:
        logger.warning("%s: cannot be read (%s); the features are computed again", path, error)
        return None
    if key != path.name.removesuffix(_SUFFIX):  # Copied or renamed: it belongs to other images.
        logger.warning("%s: the features of something else; they are computed again", path)
        return None
    values, labels, thumbnails = features.values, features.labels, features.thumbnails
    is_valid = values.dtype == DTYPE and values.ndim == 2 and labels.dtype == np.int32
    is_valid = is_valid and thumbnails.shape == (len(values), THUMBNAIL_SIZE**2 * 3)
    is_valid = is_valid and thumbnails.dtype == DTYPE and labels.shape == values.shape[:1] == (num_examples,)
    if not is_valid or not np.isfinite(values).all() or not np.isfinite(thumbnails).all():
        logger.warning("%s: not features; they are computed again", path)
        return None
    if features.names is not None and len(features.names) != len(labels):
        return None
    return features


def _save(path: Path, features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Per process, so that two processes do not write to the same file.
    beside = path.with_name(f".{path.stem}.{os.getpid()}.incomplete")
    try:
        with beside.open("wb") as file:
            np.savez(file, **features.arrays(), key=np.asarray(path.name.removesuffix(_SUFFIX)))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
