"""Datasets that can be trained from: ours, and those of other programs that TensorFlow Datasets reads."""

from pathlib import Path

from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.cache_folder import default_cache_dir
from shardstream.train.data.tfds_folder import is_tfds_folder, load_tfds_folder


def load_dataset(data_dir: Path, *, cache_dir: Path | None = None) -> DatasetInfo:
    """Reads what the dataset folder `data_dir` holds.

    What has to be found out about a folder of others is kept in `cache_dir`, by default where programs keep caches.

    Raises:
        DatasetError: It is not a dataset folder, not complete, or damaged.
    """
    if not (data_dir / METADATA).exists() and is_tfds_folder(data_dir):
        return load_tfds_folder(data_dir, cache_dir or default_cache_dir())
    return DatasetInfo.load(data_dir)
