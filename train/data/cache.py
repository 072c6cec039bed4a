"""Where decoded pictures are kept: which tier, and the source that reads through it."""

import logging
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import tensorflow as tf

from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.train.data.cache_folder import CacheFolder, default_cache_dir
from shardstream.train.data.cached_split import CachedSplit
from shardstream.train.data.decode import decoder_version
from shardstream.train.data.device_cache import DeviceSplit
from shardstream.train.data.disk_cache import DiskPictures
from shardstream.train.data.input_pipeline import ExampleSource, StreamedSplit
from shardstream.train.data.memory_cache import MemoryPictures
from shardstream.train.data.picture_file import PictureLayout
from shardstream.train.data.share import WHOLE, Share

logger = logging.getLogger(__name__)

Tier = Literal["none", "memory", "disk", "device"]
_TIERS: tuple[Tier, ...] = ("device", "memory", "disk", "none")  # The quickest first.
# What is free now is not all ours: encoded pictures, the page cache of the shards and other programs want some too.
_SHARE_OF_FREE = 0.7


class Free(NamedTuple):
    """What is free on a host, in bytes.

    Attributes:
        device: On the device with the least; None where the CPU trains.
        memory: Of the host.
        disk: In the folder of caches.
    """

    device: int | None
    memory: int
    disk: int

    def fits(self, tier: Tier, num_bytes: int, model_bytes: int) -> bool:
        """Returns whether `num_bytes` of pictures fit into a tier beside a model that needs `model_bytes`."""
        # Where the CPU trains, the model is in the memory of the host.
        beside_model = self.memory if self.device is not None else self.memory - model_bytes
        in_memory = num_bytes <= _SHARE_OF_FREE * beside_model
        match tier:
            case "device":
                # The first epoch fills memory of the host.
                on_device = self.device is not None and self.device - model_bytes
                return in_memory and num_bytes <= _SHARE_OF_FREE * on_device
            case "memory":
                return in_memory
            case "disk":
                return num_bytes <= _SHARE_OF_FREE * self.disk
            case "none":
                return True

    def __str__(self) -> str:
        device = "no GPU" if self.device is None else f"{_gigabytes(self.device)} of each GPU"
        return f"{device}, {_gigabytes(self.memory)} of memory and {_gigabytes(self.disk)} of disk are free"


def choose_tier(num_bytes: int, model_bytes: int, hosts: Mapping[str, Free]) -> Tier:
    """Returns the quickest tier that fits on all hosts, and logs in one line why.

    Args:
        num_bytes: The size of the decoded pictures of a host.
        model_bytes: What the model needs for training, on each device.
        hosts: What is free on each, by its name.
    """

    def lacking(tier: Tier) -> list[str]:
        return [name for name, free in hosts.items() if not free.fits(tier, num_bytes, model_bytes)]

    tier: Tier = next(tier for tier in _TIERS if not lacking(tier))
    quicker = _TIERS[: _TIERS.index(tier)]
    decisive = lacking(quicker[-1])[0] if quicker else next(iter(hosts))
    where = f" on {decisive}" if len(hosts) > 1 else ""
    logger.info(
        "cache: %s for %s of decoded pictures, as%s %s, and the model needs about %s",
        *(tier, _gigabytes(num_bytes), where, hosts[decisive], _gigabytes(model_bytes)),
    )
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
