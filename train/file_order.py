"""The images of a split in file order, for passes without training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from shardstream.train.engine import features
from shardstream.train.resolve import ResolvedConfig


def named_batches(setup: ResolvedConfig, split: str, numbers: np.ndarray) -> Iterator[Sequence[Any]]:
    """Yields the images of these `numbers` among those of a split: images, labels and file names."""
    return features.named_batches(
        setup.data,
        split,
        numbers,
        image_size=setup.image_size,
        max_bad_records=setup.config.max_bad_records,
    )


def num_good_examples(setup: ResolvedConfig, split: str) -> int:
    """Returns the number of images of a split: skipped corrupt records are not counted."""
    bad = setup.bad_records.get(split)
    return setup.info.split(split).num_examples - (len(bad) if bad is not None else 0)
