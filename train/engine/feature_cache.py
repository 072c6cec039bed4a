"""Features on disk: a file for each block of images, named by a hash of everything that determines them."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.ingest.common.atomic_io import open_atomic_nosync
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
        if self._folder is None:
            return None
        path = self._path(identity)
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
        # Another key: it was copied or renamed, and belongs to other images.
        if key != path.name.removesuffix(_SUFFIX) or not _is_valid(features, num_examples):
            logger.warning("%s: not these features; they are computed again", path)
            return None
        return features

    def save(self, identity: Mapping[str, Any], features: Features) -> bool:
        """Writes the features of `identity`, and returns whether they are kept; a full disk costs a warning."""
        if self._folder is None:
            return False
        path = self._path(identity)
        key = np.asarray(path.name.removesuffix(_SUFFIX))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_atomic_nosync(path) as file:
                np.savez(file, **features.arrays(), key=key)
        except OSError as error:
            logger.warning("%s: the features are not kept (%s)", path, error.strerror)
            return False
        return True

    def _path(self, identity: Mapping[str, Any]) -> Path:
        content = json.dumps({**identity, "format": _FORMAT}, sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        return (self._folder or Path()) / f"{key}{_SUFFIX}"


def _is_valid(features: Features, num_examples: int) -> bool:
    values, thumbnails, names = features.values, features.thumbnails, features.names
    return (
        values.dtype == thumbnails.dtype == DTYPE
        and features.labels.dtype == np.int32
        and values.ndim == 2
        and values.shape[:1] == features.labels.shape == (num_examples,)
        and thumbnails.shape == (num_examples, THUMBNAIL_SIZE**2 * 3)
        and (names is None or len(names) == num_examples)
        and bool(np.isfinite(values).all() and np.isfinite(thumbnails).all())
    )
