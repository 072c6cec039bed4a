"""Dataset folders for training: ours, and those of other programs that TensorFlow Datasets can read."""

from pathlib import Path

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.index import split_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.disk_cache import default_cache_dir
from shardstream.train.data.split_index import SplitIndex
from shardstream.train.data.tfds_folder import TfdsInfo, is_tfds_folder, load_tfds_folder, open_tfds_index


def load_info(
    data_dir: Path, *, cache_dir: Path | None = None, validation_share: float | None = None, seed: int = 123
) -> DatasetInfo:
    """Returns the metadata of a dataset folder, see `dataset.load_dataset`. Loads no TensorFlow for our own.

    Raises:
        ConfigError: `validation_share` is given for a dataset that has a validation split.
        DatasetError: Not a dataset folder, incomplete, or corrupt.
    """
    if is_tfds_folder(data_dir):
        return load_tfds_folder(
            data_dir, cache_dir or default_cache_dir(), validation_share=validation_share, seed=seed
        )
    info = DatasetInfo.load(data_dir)
    if validation_share is not None:
        if "validation" in info.splits:
            raise ConfigError(f"{data_dir}: has a validation split; leave --validation-share out")
        raise DatasetError(
            f"{data_dir}: no validation split; build the dataset with `--validation {validation_share:g}`"
        )
    return info


def open_split_index(info: DatasetInfo, split_name: str) -> SplitIndex:
    """Returns the record index of a split.

    Raises:
        DatasetError: There is no such split, or its index cannot be used.
    """
    if isinstance(info, TfdsInfo):
        return open_tfds_index(info, split_name)
    return SplitIndex(
        name=split_name,
        data_dir=info.data_dir,
        shards=info.split(split_name).shards,
        records=split_rows(info, split_name),
        repair_hint=info.remedy,
    )
