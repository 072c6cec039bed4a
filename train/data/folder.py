"""Dataset folders that can be trained from: ours, and those of other programs that TensorFlow Datasets reads."""

from pathlib import Path

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.disk_cache import default_cache_dir


def load_info(
    data_dir: Path, *, cache_dir: Path | None = None, validation_share: float | None = None, seed: int = 123
) -> DatasetInfo:
    """Returns what a dataset folder says of itself, see `dataset.load_dataset`. Loads no TensorFlow for ours.

    Raises:
        ConfigError: `validation_share` for a dataset that has a validation split.
        DatasetError: It is not a dataset folder, not complete, or corrupt.
    """
    if not (data_dir / METADATA).exists() and (data_dir / "dataset_info.json").is_file():
        from shardstream.train.data.tfds_folder import load_tfds_folder

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
