"""Decoded pictures in memory."""

import mmap

import numpy as np

from shardstream.ingest.common.errors import ConfigError


class MemoryPictures:
    """The pictures of a split in memory of this process. See `cached_split.Pictures`."""

    def __init__(self, num_examples: int, image_size: int) -> None:
        """Reserves the memory.

        Raises:
            ConfigError: There is not as much.
        """
        shape = (num_examples, image_size, image_size, 3)
        num_bytes = int(np.prod(shape))
        try:
            # Pages of its own: TensorFlow wants its tensors aligned to 64 bytes, and through DLPack takes this
            # array as it stands, where tf.constant would hold the split twice.
            pages = mmap.mmap(-1, num_bytes)
        except OSError as error:
            raise ConfigError(
                f"cache: {num_bytes / 1e9:.2f} GB of decoded pictures do not fit into memory ({error.strerror}); "
                "use --cache disk or none"
            ) from None
        self._images = np.frombuffer(pages, np.uint8).reshape(shape)
        self._labels = np.zeros(num_examples, np.int32)
        self._is_there = np.zeros(num_examples, bool)

    def is_whole(self) -> bool:
        """See `cached_split.Pictures`."""
        return bool(self._is_there.all())

    def missing(self) -> np.ndarray:
        """See `cached_split.Pictures`."""
        return np.flatnonzero(~self._is_there)

    def put(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """See `cached_split.Pictures`."""
        for row, image in zip(rows.tolist(), images, strict=True):
            np.copyto(self._images[row], image)  # All at once would keep Python's lock for milliseconds.
        self._labels[rows] = labels
        self._is_there[rows] = True

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """See `cached_split.Pictures`."""
        return self._images, self._labels

    def is_checked(self) -> bool:
        """See `cached_split.Pictures`."""
        return True

    def check(self, rows: np.ndarray) -> None:
        """See `cached_split.Pictures`."""
