"""Images in class folders as a test set: a temporary dataset for one report."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.split_hash import TEST
from shardstream.ingest.pipeline.split_folders import split_folders
from shardstream.train.runs.saved_model import ModelInfo


@contextlib.contextmanager
def labelled_dataset(run: Path, images: Path, labels: Path | None) -> Iterator[tuple[Path, str | None]]:
    """Makes a dataset of labelled images, with the image settings of the training dataset, and removes it at the end.

    Args:
        run: The run folder of the model.
        images: Class folders, split folders above them, or an archive of these.
        labels: The table of labels, if the classes come from one.

    Yields:
        The dataset folder, and the split of all images; None if the source defines the splits.

    Raises:
        ConfigError: The classes are not those of the model.
        DatasetError: The images are unusable, or there is no model.
    """
    from shardstream.ingest.commands.build import build_dataset
    from shardstream.ingest.commands.config import BuildConfig

    model = ModelInfo.load(run)
    has_splits = labels is None and _has_splits(images)
    with tempfile.TemporaryDirectory(prefix="shardstream-") as folder:
        config = BuildConfig(
            images=images,
            data=Path(folder) / (images.resolve().stem or "images"),
            labels=labels,
            splits_from_folders=has_splits,
            class_names=tuple(model.class_names),
            display_names=tuple(model.display_names),
            image_size=model.stored_size or "original",
            resize=model.resize,
            encoding=model.encoding,
            quality=model.quality,
            validation=0.0,
            test=0.0 if has_splits else 1.0,
            max_rejected=1.0,
        )
        try:
            build_dataset(config)
        except ConfigError as error:
            reason = str(error).replace(
                "--class-names do not match the classes in", "other classes than the model in"
            )
            raise DatasetError(f"--labelled: {reason}") from None
        yield config.data, None if has_splits else TEST


def _has_splits(images: Path) -> bool:
    if not images.is_dir():
        return False
    return len(set(split_folders(entry.name for entry in images.iterdir() if entry.is_dir()).values())) > 1
