"""Is what the user gave a dataset, or are they photos?"""

from pathlib import Path

from shardstream.ingest.dataset.metadata import FILENAME


def is_dataset(path: Path) -> bool:
    """Returns whether `path` is a dataset folder, or was meant to be one.

    A folder with metadata.json, or one that TensorFlow Datasets wrote. One with records and neither is a dataset that
    is not whole, and what is not there is more likely a dataset that has another name than a photo: both errors say
    so. Everything else are photos.
    """
    if not path.exists():
        return True
    names = ("*.tfrecord*", "dataset_info.json", FILENAME)
    return path.is_dir() and any(True for name in names for _ in path.glob(name))
