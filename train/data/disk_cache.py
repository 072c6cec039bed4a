"""Decoded pictures in a file that later runs and processes side by side share."""

import logging
import threading
from collections.abc import Callable

import numpy as np

from shardstream.train.data.cache_folder import CacheFolder, remove
from shardstream.train.data.picture_file import (
    DamagedFileError,
    PartialPictureFile,
    PictureFile,
    PictureLayout,
)

logger = logging.getLogger(__name__)


class DiskPictures:
    """The pictures of a split in a file of a `CacheFolder`. See `cached_split.Pictures`.

    One process fills the file, whichever comes first. Another that comes meanwhile decodes for itself and looks
    again before each epoch, so none ever waits for another; and as the order does not depend on the cache, it trains
    the same. A disk that is full has the same end, and a warning.
    """

    def __init__(
        self, folder: CacheFolder, layout: PictureLayout, decode: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Looks for the file, and begins it where there is none and nobody else has.

        `decode` returns the pictures of some numbers, for those that turn out to be damaged.
        """
        self._folder = folder
        self._layout = layout
        self._decode = decode
        self._lock = threading.Lock()  # Training and evaluation fill the file in threads.
        self._whole: PictureFile | None = None
        self._partial: PartialPictureFile | None = None
        self._is_there = np.zeros(layout.num_examples, bool)
        self._is_hopeless = False
        folder.sweep(layout)
        self._look()

    def is_whole(self) -> bool:
        """See `cached_split.Pictures`."""
        with self._lock:
            if not (self._whole or self._partial or self._is_hopeless):
                self._look()
            return self._whole is not None

    def missing(self) -> np.ndarray:
        """See `cached_split.Pictures`."""
        return np.flatnonzero(~self._is_there) if self._partial else np.empty([0], np.int64)

    def put(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """See `cached_split.Pictures`."""
        with self._lock:
            if not self._partial:
                return
            try:
                for row, image, label in zip(rows, images, labels, strict=True):
                    if not self._is_there[row]:
                        self._partial.put(int(row), image, int(label))
                        self._is_there[row] = True
                if self._is_there.all():
                    here, path = self._folder.partial(self._layout), self._folder.whole(self._layout)
                    self._whole, self._partial = self._partial.finish(here, path), None
            except OSError as error:
                self._partial = None
                remove(self._folder.partial(self._layout))
                self._give_up(error)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """See `cached_split.Pictures`."""
        whole = self._file()
        return whole.images, whole.labels

    def is_checked(self) -> bool:
        """See `cached_split.Pictures`."""
        return bool(self._file().is_checked.all())

    def check(self, rows: np.ndarray) -> None:
        """See `cached_split.Pictures`."""
        whole = self._file()
        if not len(damaged := whole.damaged(rows)):
            return
        whole.images[damaged] = self._decode(damaged)
        if remove(whole.path):
            logger.warning(
                "%s: pictures in it are damaged; they are decoded again, and it is removed", whole.path
            )

    def _file(self) -> PictureFile:
        if self._whole is None:
            raise RuntimeError("there is no whole file yet")
        return self._whole

    def _look(self) -> None:
        path = self._folder.whole(self._layout)
        try:
            if path.exists():
                self._open()
            elif (descriptor := self._folder.begin(self._layout)) is not None:
                self._begin(descriptor)
            else:
                logger.info(
                    "%s: another process fills it; until then pictures are decoded in every epoch", path
                )
        except OSError as error:
            self._give_up(error)

    def _begin(self, descriptor: int) -> None:
        try:
            self._partial = PartialPictureFile(descriptor, self._layout)
        except OSError:
            remove(self._folder.partial(self._layout))
            raise

    def _open(self) -> None:
        path = self._folder.whole(self._layout)
        try:
            self._whole = PictureFile.open(path, self._layout)
        except DamagedFileError as error:
            logger.warning("%s: removed, as it is not as it was written (%s)", path, error)
            path.unlink(missing_ok=True)
            self._look()

    def _give_up(self, error: OSError) -> None:
        self._is_hopeless = True
        logger.warning(
            "%s: pictures cannot be kept there (%s); they are decoded in every epoch",
            self._folder.path,
            error.strerror,
        )
