"""Caches of decoded images: later epochs gather instead of decoding, with the same batches in the same order."""

import dataclasses
import logging
import mmap
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.byte_size import format_size
from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.memory_limits import free_memory_bytes
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.data.disk_cache import default_cache_dir, open_or_fill
from shardstream.train.data.generators import until_exit
from shardstream.train.data.pipeline import ExamplePlan, with_all_steps, without_autograph
from shardstream.train.data.sampling import Window

logger = logging.getLogger(__name__)

Tier = Literal["none", "memory", "disk", "auto"]
# DLPack tensors must be aligned to this, or TensorFlow aborts the process.
_ALIGNMENT = 64
# Not all free memory is for images: the model, encoded records and other programs need some too.
USABLE_FRACTION = 0.5

# Called with the number of images decoded so far and the number of all.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CachedImages:
    """Decoded images and their labels.

    Attributes:
        images: uint8 [num_images, height, width, 3], aligned and writable as DLPack requires.
        labels: int32 [num_images], aligned and writable too.
    """

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def empty(cls, num_images: int, image_size: int) -> "CachedImages":
        """Returns uninitialized arrays in memory."""
        images = _aligned(num_images * image_size * image_size * 3).reshape(
            num_images, image_size, image_size, 3
        )
        return cls(images, _aligned(num_images * 4).view(np.int32))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CacheRequest:
    """Describes what to cache.

    Attributes:
        identity: Everything that determines the images, as JSON values by name.
        num_images: Number of images.
        image_size: Height and width in pixels.
        batches: Returns (images, labels) of all images, in the order of the cache.
    """

    identity: dict[str, object]
    num_images: int
    image_size: int
    batches: Callable[[], tf.data.Dataset]

    @property
    def num_bytes(self) -> int:
        """Size of the decoded images."""
        return self.num_images * self.image_size * self.image_size * 3


class ImageCaches:
    """The caches of one dataset, shared by all its tf.data.Datasets."""

    def __init__(self) -> None:
        self._caches: dict[str, CachedImages] = {}

    def get(
        self, request: CacheRequest, tier: Tier, *, cache_dir: Path | None, progress: Progress | None
    ) -> CachedImages | None:
        """Returns the images of `request`, decoded now if not yet cached; None without a cache.

        Raises:
            ConfigError: Unknown tier, or not enough memory.
            DatasetError: A record is corrupt.
        """
        if tier not in get_args(Tier):
            raise ConfigError(f"cache must be one of {', '.join(get_args(Tier))}, got {tier!r}")
        key = repr(sorted(request.identity.items()))
        if tier == "none" or key in self._caches:
            return self._caches.get(key) if tier != "none" else None
        folder = Path(cache_dir) if cache_dir else default_cache_dir()
        tier = choose_tier(request, folder) if tier == "auto" else tier
        images = _fill_tier(request, tier, folder, progress)
        if images is not None:
            self._caches[key] = images
        return images


def choose_tier(request: CacheRequest, folder: Path) -> Tier:
    """Returns the fastest tier that `request` fits in, and logs the reason in one line."""
    free = free_bytes(folder)
    fitting: list[Tier] = [name for name in free if request.num_bytes <= USABLE_FRACTION * free[name]]
    tier = fitting[0] if fitting else "none"
    logger.info(
        "cache of %s: %s for %s of decoded images, as %s of memory and %s of disk are free",
        *(request.identity["split"], tier),
        *(format_size(num_bytes) for num_bytes in (request.num_bytes, free["memory"], free["disk"])),
    )
    return tier


def free_bytes(folder: Path) -> dict[Tier, int]:
    """Returns the bytes free for caches, fastest tier first: in memory, and on the disk of `folder`."""
    return {"memory": free_memory_bytes(), "disk": shutil.disk_usage(nearest_folder(folder)).free}


def nearest_folder(folder: Path) -> Path:
    """Returns `folder`, or the nearest of its parents that exists."""
    return next(path for path in [folder, *folder.absolute().parents] if path.exists())


@without_autograph
def cached_batches(
    cached: CachedImages, plan: ExamplePlan, rows_of: Callable[[Window], np.ndarray]
) -> tf.data.Dataset:
    """Returns the batches of `plan`, (images, labels), gathered from `cached`.

    `rows_of` returns the rows int64 [num_steps, batch] of the examples of a window.
    """
    images, labels = as_tensor(cached.images), as_tensor(cached.labels)
    width = plan.batch_size if plan.num_examples is None else None

    def rows() -> Iterator[np.ndarray]:
        for window in plan.windows(plan.first_step):
            yield rows_of(window)

    def gather(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.ensure_shape(rows, [width])
        return tf.gather(images, rows), tf.gather(labels, rows)

    signature = tf.TensorSpec([None, None], tf.int64)  # pyright: ignore[reportArgumentType]
    dataset = tf.data.Dataset.from_generator(lambda: until_exit(rows()), output_signature=signature)
    dataset = dataset.flat_map(lambda *rows: tf.data.Dataset.from_tensor_slices(rows[0]))
    dataset = dataset.map(gather, num_parallel_calls=usable_cores(), deterministic=True)
    return with_all_steps(dataset, plan)


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor that shares the memory of `array`: later writes to the array are visible."""
    if array.ctypes.data % _ALIGNMENT:
        raise ValueError(f"an array at {array.ctypes.data:#x} is not aligned to {_ALIGNMENT} bytes")
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _fill_tier(
    request: CacheRequest, tier: Tier, folder: Path, progress: Progress | None
) -> CachedImages | None:
    def fill(write: Callable[[int, np.ndarray, np.ndarray], None]) -> None:
        done = 0
        for images, labels in naming_corruption(request.batches()):
            write(done, np.asarray(memoryview(images)), labels.numpy())  # No copy.
            done += len(labels)
            if progress:
                progress(done, request.num_images)

    if tier == "disk":
        arrays = open_or_fill(folder, request.identity, request.num_images, request.image_size, fill)
        return None if arrays is None else CachedImages(*arrays)
    if tier == "none":
        return None
    _check_memory(request)
    cached = CachedImages.empty(request.num_images, request.image_size)

    def write(first: int, images: np.ndarray, labels: np.ndarray) -> None:
        cached.images[first : first + len(labels)] = images
        cached.labels[first : first + len(labels)] = labels

    fill(write)
    return cached


def _check_memory(request: CacheRequest) -> None:
    free = free_memory_bytes()
    if request.num_bytes > free:
        raise ConfigError(
            f"cache='memory' needs {format_size(request.num_bytes)} for the decoded images, {format_size(free)} are "
            "free; use cache='disk' or cache='none'"
        )


def _aligned(num_bytes: int) -> np.ndarray:
    """Returns page-aligned uint8 [num_bytes]. The kernel allocates the memory when it is written to."""
    # No huge pages: where the page cache fills the memory, as with a large dataset, the kernel moves other pages
    # to make each of them, 2 s for 800 MB. Without them, 0.4 s; later epochs are as fast.
    memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.uint8, num_bytes)
