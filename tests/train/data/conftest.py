"""Datasets for the pipeline, whose images say which they are."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.dataset import Dataset


@pytest.fixture(scope="session")
def numbered(make_dataset) -> Dataset:
    """1,100 training images in 3 files, and 101 for validation in one."""
    return Dataset(make_dataset(num_train=1100, num_validation=101))


@pytest.fixture
def copied(numbered: Dataset, tmp_path: Path) -> Dataset:
    """The same in a folder of its own, to be spoilt."""
    shutil.copytree(numbered.info.data_dir, tmp_path / "data")
    return Dataset(DatasetInfo.load(tmp_path / "data"))


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[object], list[int]]:
    """Which images of `numbered` these are: their first pixel says it."""

    def numbers(images: object) -> list[int]:
        pixels = np.asarray(images)[:, 0, 0].astype(int)
        return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()

    return numbers


@pytest.fixture(scope="session")
def train_numbers(numbers_of) -> Callable[..., list[list[int]]]:
    """The images of the first batches of 16, or what the options say."""

    def numbers(data: Dataset, count: int, **options) -> list[list[int]]:
        batches = data.train_batches(**{"batch_size": 16, "seed": 3, **options})
        return [numbers_of(images) for images, _ in batches.take(count)]

    return numbers
