"""Where decoded pictures are kept: which tier, and the source that reads through it."""

import dataclasses
import logging
from collections.abc import Iterable
from typing import Literal

import tensorflow as tf

from ingest.metadata import DatasetInfo, SplitInfo
from train.cache_folder import CacheFolder, default_cache_dir
from train.cached_split import CachedSplit
from train.decode import decoder_version
from train.device_cache import DeviceSplit
from train.disk_cache import DiskPictures
from train.input_pipeline import ExampleSource, StreamedSplit
from train.memory_cache import MemoryPictures
from train.picture_file import PictureLayout
from train.share import WHOLE, Share

logger = logging.getLogger(__name__)

Tier = Literal["none", "memory", "disk", "device"]
# What is free now is not all ours: encoded pictures, the page cache of the shards and other programs want some too.
_SHARE_OF_FREE = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What is free where, in bytes.

    Attributes:
        model: What the model needs for training, on each device.
        device: On the device with the least, the model not counted; None where the CPU trains.
        memory: Of the host; where the CPU trains the model is in it too.
        disk: In the folder of caches.
    """

    model: int
    device: int | None
    memory: int
    disk: int

    def tier(self, num_bytes: int) -> Tier:
        """Returns the quickest tier that `num_bytes` of pictures fit into."""
        beside_model = self.memory if self.device is not None else self.memory - self.model
        in_memory = num_bytes <= _SHARE_OF_FREE * beside_model
        # The first epoch fills memory of the host, whichever of the two it is.
        if self.device is not None and in_memory and num_bytes <= _SHARE_OF_FREE * (self.device - self.model):
            return "device"
        if in_memory:
            return "memory"
        return "disk" if num_bytes <= _SHARE_OF_FREE * self.disk else "none"

    def __str__(self) -> str:
        device = "no GPU" if self.device is None else f"{_gigabytes(self.device)} of each GPU"
        return (
            f"{device}, {_gigabytes(self.memory)} of memory and {_gigabytes(self.disk)} of disk are free, "
            f"and the model needs about {_gigabytes(self.model)}"
        )


def choose_tier(splits: Iterable[SplitInfo], image_size: int, room: Room) -> Tier:
    """Returns the quickest tier that all pictures of `splits` fit into, and logs in one line why."""
    num_bytes = decoded_bytes(splits, image_size)
    tier = room.tier(num_bytes)
    logger.info("cache: %s for %s of decoded pictures, as %s", tier, _gigabytes(num_bytes), room)
    return tier


def decoded_bytes(splits: Iterable[SplitInfo], image_size: int) -> int:
    """Returns the size of all pictures of `splits` as uint8."""
    return sum(split.num_examples for split in splits) * image_size * image_size * 3


def make_source(
    info: DatasetInfo,
    split_name: str,
    *,
    tier: Tier,
    image_size: int,
    share: Share = WHOLE,
    strategy: tf.distribute.Strategy | None = None,
    folder: CacheFolder | None = None,
) -> ExampleSource:
    """Returns the share of the split of that name, read through the cache tier `tier`.

    `strategy` is that of the devices that train, and `folder` where `disk` keeps its files.

    Raises:
        ConfigError: There is not as much memory.
        DatasetError: A shard is missing or has another size than it was written with.
    """
    stream = StreamedSplit(info, split_name, image_size=image_size, share=share)
    match tier:
        case "memory":
            return CachedSplit(stream, MemoryPictures(stream.split.num_examples, image_size))
        case "disk":
            folder = folder or CacheFolder(default_cache_dir())
            return CachedSplit(stream, DiskPictures(folder, picture_layout(stream), stream.decoded))
        case "device":
            return DeviceSplit(stream, strategy or tf.distribute.get_strategy())
        case "none":
            return stream


def picture_layout(stream: StreamedSplit) -> PictureLayout:
    """Returns what is in a file of the pictures of `stream`."""
    info = stream.info
    return PictureLayout(
        identity={
            "fingerprint": info.fingerprint,
            "split": stream.split.name,
            "worker": stream.share.worker,
            "num_workers": stream.share.num_workers,
            "num_examples": stream.split.num_examples,
            "image_size": stream.image_size,
            "resize": info.image.resize,
            "decoder": decoder_version(),
        },
        origin=str(info.data_dir.resolve()),
        num_examples=stream.split.num_examples,
        image_size=stream.image_size,
    )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
